// permission.ts: Node's permission model and its flags, where they are why something fails.

// By its member: the error may come from another realm.
const codeOf = (e: unknown): unknown =>
  (typeof e === 'object' && e !== null ? (e as { code?: unknown }).code : undefined)

/** True for what Node throws where its permission model forbids a file. */
export const isDenied = (e: unknown): boolean => codeOf(e) === 'ERR_ACCESS_DENIED'

/** The path that Node's permission model forbade. */
export function deniedPath(e: unknown): string | undefined {
  const { resource } = isDenied(e) ? (e as { resource?: unknown }) : {}
  return typeof resource === 'string' ? resource : undefined
}

/** True for what Node throws where addons may not be loaded. */
export const isAddonDenied = (e: unknown): boolean => codeOf(e) === 'ERR_DLOPEN_DISABLED'

/** True when Node runs with its permission model. */
export const hasPermissionModel = (): boolean => (process as { permission?: unknown }).permission !== undefined

/** The hint for an error that the permission model caused, else undefined; `path` is what must be allowed. */
export function permissionHint(e: unknown, path: string): string | undefined {
  if (!isDenied(e)) return undefined
  const { permission } = e as { permission?: unknown }
  const flag = permission === 'FileSystemWrite' ? '--allow-fs-write' : '--allow-fs-read'
  return `Node's permission model forbids it: start Node with ${flag}=${path}`
}
