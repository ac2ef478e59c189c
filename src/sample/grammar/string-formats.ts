/** JSON Schema's formats of strings, as patterns that only valid strings match. */

const month31 = "(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])";
const month30 = "(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)";
const february = "02-(?:0[1-9]|1\\d|2[0-8])";
const leapYear = "(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)";
const date = `(?:\\d{4}-(?:${month31}|${month30}|${february})|${leapYear}-02-29)`;
// A leap second would be valid at midnight UTC alone.
const time = "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d+)?(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)";

const byte = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
const ipv4 = `${byte}(?:\\.${byte}){3}`;
const group = "[0-9a-fA-F]{1,4}";
/** RFC 4291: eight groups; or fewer, with one "::" for those left out. */
const ipv6 = [
  `(?:${group}:){7}${group}`,
  ...[1, 2, 3, 4, 5, 6].map((before) => `(?:${group}:){${before}}(?::${group}){1,${7 - before}}`),
  `:(?::${group}){1,7}`,
  `(?:${group}:){1,7}:`,
  "::",
].join("|");

const label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
const hostname = `${label}(?:\\.${label}){0,3}`;
const atom = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+";
const email = `${atom}(?:\\.${atom})*@${label}(?:\\.${label}){1,3}`;

const count = (unit: string) => `\\d+${unit}`;
const clock = `T(?:${count("H")}(?:${count("M")}(?:${count("S")})?)?|${count("M")}(?:${count("S")})?|${count("S")})`;
const days = `(?:${count("Y")}(?:${count("M")}(?:${count("D")})?)?|${count("M")}(?:${count("D")})?|${count("D")})`;
const duration = `P(?:${days}(?:${clock})?|${clock}|${count("W")})`;

const unreserved = "[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2}";
const path = `(?:/(?:${unreserved})*)*`;
const tail = `(?:\\?(?:${unreserved}|[/?])*)?(?:#(?:${unreserved}|[/?])*)?`;
const authority = `${hostname}(?::\\d{1,4})?`;
const uri = `(?:https?|ftp|wss?)://${authority}${path}${tail}`;

const hex = (length: number) => `[0-9a-fA-F]{${length}}`;
const uuid = `${hex(8)}-${hex(4)}-${hex(4)}-${hex(4)}-${hex(12)}`;

/** By the names of JSON Schema 2020-12. */
export const STRING_FORMATS: Readonly<Record<string, string>> = {
  date,
  time,
  "date-time": `${date}T${time}`,
  duration,
  email,
  hostname,
  ipv4,
  ipv6,
  uri,
  uuid,
  "json-pointer": "(?:/(?:[A-Za-z0-9 _.-]|~[01])*)*",
};
