const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS = [
  "January",
  "February",
  "March",
  "April",
  "May",
  "June",
  "July",
  "August",
  "September",
  "October",
  "November",
  "December",
];

/**
 * Python's strftime in the C locale and local time, for the directives that chat templates use. A directive with "-"
 * gives a number without its zeros, as the C library does on Linux and macOS.
 */
export function strftime(date: Date, format: string): string {
  const two = (n: number) => String(n).padStart(2, "0");
  const [day, month, hour] = [DAYS[date.getDay()]!, MONTHS[date.getMonth()]!, date.getHours()];
  const midnight = (at: Date) => Date.UTC(at.getFullYear(), at.getMonth(), at.getDate());
  const dayOfYear = (midnight(date) - Date.UTC(date.getFullYear(), 0, 1)) / 86_400_000 + 1;
  const directives: Record<string, string> = {
    Y: String(date.getFullYear()),
    y: two(date.getFullYear() % 100),
    m: two(date.getMonth() + 1),
    d: two(date.getDate()),
    e: String(date.getDate()).padStart(2),
    j: String(dayOfYear).padStart(3, "0"),
    B: month,
    b: month.slice(0, 3),
    h: month.slice(0, 3),
    A: day,
    a: day.slice(0, 3),
    U: two(Math.floor((dayOfYear + 6 - date.getDay()) / 7)),
    w: String(date.getDay()),
    u: String(date.getDay() || 7),
    H: two(hour),
    I: two(hour % 12 || 12),
    p: hour < 12 ? "AM" : "PM",
    M: two(date.getMinutes()),
    S: two(date.getSeconds()),
    Z: "",
    z: "",
    n: "\n",
    t: "\t",
    "%": "%",
  };
  const whole = Object.entries(COMPOSED).reduce((text, [name, parts]) => text.replaceAll(name, parts), format);
  return whole.replace(/%(-?)([a-zA-Z%])/g, (unknown, bare: string, directive: string) => {
    const text = directives[directive];
    if (text === undefined) return unknown;
    return bare ? text.replace(/^[0 ]+(?=.)/, "") : text;
  });
}

const COMPOSED = {
  "%c": "%a %b %e %T %Y",
  "%D": "%m/%d/%y",
  "%x": "%m/%d/%y",
  "%F": "%Y-%m-%d",
  "%R": "%H:%M",
  "%T": "%H:%M:%S",
  "%X": "%H:%M:%S",
};
