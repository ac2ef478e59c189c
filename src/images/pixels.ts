/** An image as its pixels. */
export interface Pixels {
  width: number;
  height: number;
  /** Red, green and blue of each pixel, row by row: (height, width, 3), a byte each. */
  data: Uint8Array;
}
