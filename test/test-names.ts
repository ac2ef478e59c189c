/** The names of the tests in a file, as they are written there: for tables that say which test shows what. */
export async function testNames(path: string): Promise<string[]> {
  const source = await Bun.file(path).text();
  // test("…", and test.each(…)("…", whose table may be of many lines.
  return [...source.matchAll(/(?:\btest|\))\(\s*(["'`])(.*)\1,/g)].map(([, , name]) => name!);
}
