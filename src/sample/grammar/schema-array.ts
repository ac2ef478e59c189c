/** Items of arrays. */
import type { Place, Schema, SubschemaReader } from "./schema-place";
import { lengthOf } from "./schema-string";

export function arraySchema(schema: Schema, place: Place, reader: SubschemaReader): Schema {
  const min = lengthOf(schema, "minItems", place) ?? 0;
  const max = lengthOf(schema, "maxItems", place);
  if (max !== undefined && min > max) place.fail('"minItems" above "maxItems"');

  // Before 2020-12, a list of `items` was what is `prefixItems` now, and `additionalItems` came behind it.
  const isOld = Array.isArray(schema.items);
  const places: [unknown, Place][] = isOld
    ? [
        [schema.items, place.at("items")],
        [schema.additionalItems, place.at("additionalItems")],
      ]
    : [
        [schema.prefixItems, place.at("prefixItems")],
        [schema.items, place.at("items")],
      ];
  const [[first, firstPlace], [others, othersPlace]] = places as [[unknown, Place], [unknown, Place]];
  if (first !== undefined && !Array.isArray(first)) place.fail('"prefixItems" that is no list');
  const listed = ((first as unknown[] | undefined) ?? []).slice(0, max);
  const prefixItems = listed.map((item, i) => reader.schema(item, firstPlace.at(i)));

  const more = others ?? schema.unevaluatedItems;
  const morePlace = others === undefined ? place.at("unevaluatedItems") : othersPlace;
  // Nothing is said of further items: there are some only where there are no others, or too few.
  const free = prefixItems.length === 0 || min > prefixItems.length;
  const items = more === undefined ? (free ? {} : false) : more === false ? false : reader.schema(more, morePlace);
  if (items === false && min > prefixItems.length) place.fail('"minItems" above the number of items that there may be');
  return {
    type: "array",
    ...(prefixItems.length > 0 && { prefixItems }),
    items: max !== undefined && max <= prefixItems.length ? false : items,
    ...(min > 0 && { minItems: min }),
    ...(max !== undefined && { maxItems: max }),
  };
}
