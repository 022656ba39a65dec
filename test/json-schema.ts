// json-schema.ts: holds a value against a JSON schema, for tests. Knows the keywords that our schemas use and throws at
// any other, so that no rule of a schema can be overlooked. Not a validator for schemas of others.

type Schema = Readonly<Record<string, unknown>>

const remarks = new Set(['$schema', 'title', 'description'])

function typeOf(value: unknown): string {
  if (value === null) return 'null'
  return Array.isArray(value) ? 'array' : typeof value
}

const isType = (value: unknown, type: string): boolean =>
  (type === 'integer' ? Number.isInteger(value) : type === 'number' ? Number.isFinite(value) : typeOf(value) === type)

const isNumberAbove = (value: unknown, least: unknown, itself: boolean): boolean =>
  typeof value !== 'number' || value > (least as number) || (itself && value === least)

const rules: Readonly<Record<string, (value: unknown, rule: unknown, schema: Schema, at: string) => string[]>> = {
  type: (value, rule, _schema, at) =>
    ([rule].flat().some(type => isType(value, type as string)) ? [] : [`${at}: ${JSON.stringify(value)} is not ${String(rule)}`]),
  const: (value, rule, _schema, at) => (value === rule ? [] : [`${at}: not ${JSON.stringify(rule)}`]),
  enum: (value, rule, _schema, at) => ((rule as unknown[]).includes(value) ? [] : [`${at}: not one of ${JSON.stringify(rule)}`]),
  minimum: (value, rule, _schema, at) => (isNumberAbove(value, rule, true) ? [] : [`${at}: below ${String(rule)}`]),
  exclusiveMinimum: (value, rule, _schema, at) => (isNumberAbove(value, rule, false) ? [] : [`${at}: not above ${String(rule)}`]),
  required: (value, rule, _schema, at) => (typeOf(value) !== 'object' ? []
    : (rule as string[]).filter(name => !Object.hasOwn(value as object, name)).map(name => `${at}.${name}: missing`)),
  properties: (value, rule, _schema, at) => (typeOf(value) !== 'object' ? []
    : Object.entries(rule as Record<string, Schema>).flatMap(([name, part]) => (Object.hasOwn(value as object, name)
      ? violations((value as Record<string, unknown>)[name], part, `${at}.${name}`) : []))),
  additionalProperties: (value, rule, schema, at) => (rule !== false || typeOf(value) !== 'object' ? []
    : Object.keys(value as object).filter(name => !Object.hasOwn((schema['properties'] ?? {}) as object, name))
      .map(name => `${at}.${name}: unknown`)),
  items: (value, rule, _schema, at) => (Array.isArray(value)
    ? value.flatMap((item, i) => violations(item, rule as Schema, `${at}[${i}]`)) : []),
}

/** What of a value breaks the schema; empty when nothing does. */
export function violations(value: unknown, schema: Schema, at = 'value'): string[] {
  return Object.entries(schema).filter(([keyword]) => !remarks.has(keyword)).flatMap(([keyword, rule]) => {
    const check = rules[keyword]
    if (check === undefined) throw new Error(`the schema uses ${keyword}, which this validator does not know`)
    return check(value, rule, schema, at)
  })
}
