/** The script is imported as text, to be sent. */
declare const text: string;
export default text;
