/**
 * Files that travel inside the executable, by bundle. In a checkout there are none: what they would hold lies in the
 * working tree. `build.ts` puts a list of the real ones in place of this module when it compiles.
 */
export interface EmbeddedBundle {
  /** Hash over the files; names the folder that they are unpacked to. */
  id: string;
  files: {
    /** Path inside the bundle. */
    name: string;
    /** Path of the zstd-compressed file inside the executable. */
    path: string;
    /** Size and hash of what comes out. */
    size: number;
    sha256: string;
  }[];
}

export const bundles: Readonly<Record<string, EmbeddedBundle>> = {};
