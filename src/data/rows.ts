/** Tables of data: rows with named columns, in memory or read as they are asked for. */

export type Row = Record<string, unknown>;

/** A table. Rows have every column; what a file lacks is null. */
export interface Rows {
  readonly length: number;
  readonly columns: readonly string[];
  /**
   * Where numbers are floats even if they are whole: Python prints those with ".0". Paths of fields, lists being
   * transparent: "score", "choices.weight".
   */
  readonly floats: ReadonlySet<string>;
  /** @throws RangeError where there is no such row */
  at(index: number): Promise<Row>;
  /** Where a row is found, for a person: "train.jsonl, line 12". */
  where(index: number): string;
  all(): Promise<Row[]>;
}

/** What is known of a table's rows, beside them. */
export interface RowFacts {
  floats?: ReadonlySet<string>;
  /** Those of the rows, in the order of their first appearance, where not given. */
  columns?: readonly string[];
}

/** Rows that are in memory. */
export class RowList implements Rows {
  readonly columns: readonly string[];
  readonly floats: ReadonlySet<string>;

  constructor(
    private readonly rows: readonly Row[],
    readonly where: (index: number) => string,
    { floats = new Set(), columns }: RowFacts = {},
  ) {
    this.floats = floats;
    this.columns = columns ?? [...new Set(rows.flatMap((row) => Object.keys(row)))];
  }

  get length(): number {
    return this.rows.length;
  }

  async at(index: number): Promise<Row> {
    const row = this.rows[index];
    if (!row) throw new RangeError(`there is no row ${index} among ${this.rows.length}`);
    return row;
  }

  async all(): Promise<Row[]> {
    return [...this.rows];
  }
}

/** Several tables, one behind the other. */
export class JoinedRows implements Rows {
  readonly columns: readonly string[];
  readonly floats: ReadonlySet<string>;
  readonly length: number;

  constructor(private readonly parts: readonly Rows[]) {
    this.columns = [...new Set(parts.flatMap(({ columns }) => columns))];
    this.floats = new Set(parts.flatMap(({ floats }) => [...floats]));
    this.length = parts.reduce((sum, { length }) => sum + length, 0);
  }

  async at(index: number): Promise<Row> {
    const { part, rest } = this.#find(index);
    return part.at(rest);
  }

  where(index: number): string {
    const { part, rest } = this.#find(index);
    return part.where(rest);
  }

  #find(index: number): { part: Rows; rest: number } {
    let rest = index;
    for (const part of this.parts) {
      if (rest < part.length) return { part, rest };
      rest -= part.length;
    }
    throw new RangeError(`there is no row ${index} among ${this.length}`);
  }

  async all(): Promise<Row[]> {
    return (await Promise.all(this.parts.map((part) => part.all()))).flat();
  }
}

/** Some rows of a table, one behind the other. */
export class PickedRows implements Rows {
  constructor(
    private readonly rows: Rows,
    private readonly start: number,
    readonly length: number,
  ) {}

  get columns(): readonly string[] {
    return this.rows.columns;
  }

  get floats(): ReadonlySet<string> {
    return this.rows.floats;
  }

  async at(index: number): Promise<Row> {
    if (index < 0 || index >= this.length) throw new RangeError(`there is no row ${index} among ${this.length}`);
    return this.rows.at(this.start + index);
  }

  where(index: number): string {
    return this.rows.where(this.start + index);
  }

  async all(): Promise<Row[]> {
    return (await this.rows.all()).slice(this.start, this.start + this.length);
  }
}
