import { expect, test } from "bun:test";
import { strftime } from "./strftime";

test("directives, in English whatever the locale", () => {
  const afternoon = new Date(2026, 2, 5, 14, 7, 9);
  expect(strftime(afternoon, "%A %d %B %Y, %a %b %y %m")).toBe("Thursday 05 March 2026, Thu Mar 26 03");
  expect(strftime(afternoon, "%H:%M:%S %I %p %F %T 100%% %Q")).toBe("14:07:09 02 PM 2026-03-05 14:07:09 100% %Q");
  expect(strftime(new Date(2026, 0, 1, 0, 0, 0), "%I %p")).toBe("12 AM");
});
