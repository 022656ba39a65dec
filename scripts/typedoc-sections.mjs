// typedoc-sections.mjs: a plugin for `npm run docs`: options are shown under the headings that stand between them in the source,
// as `// ---- Sampling`, instead of one list of 40. Members keep the order of the source (typedoc.json); the lists of classes,
// functions and types, which come from many files, are alphabetical.
import { Comment, CommentTag, Converter, ReflectionKind } from 'typedoc'

const heading = /^ *\/\/ -{4} (.+)$/gm

/** The last heading between the beginning of the interface and the option; undefined where there is none. */
function sectionOf(declaration) {
  const from = declaration.parent.getStart()
  const above = declaration.getSourceFile().text.slice(from, declaration.getStart())
  return [...above.matchAll(heading)].at(-1)?.[1]
}

export function load(app) {
  app.converter.on(Converter.EVENT_RESOLVE_BEGIN, context => {
    for (const option of context.project.getReflectionsByKind(ReflectionKind.Property)) {
      const declaration = context.getSymbolFromReflection(option)?.declarations?.[0]
      const section = declaration?.parent === undefined ? undefined : sectionOf(declaration)
      if (section === undefined) continue
      option.comment ??= new Comment()
      option.comment.blockTags.push(new CommentTag('@group', [{ kind: 'text', text: section }]))
    }
  })
  const last = -1000                                       // after TypeDoc's own grouping
  app.converter.on(Converter.EVENT_RESOLVE_END, ({ project }) => {
    for (const { title, children } of project.groups ?? []) {
      if (title !== 'Documents') children.sort((a, b) => a.name.localeCompare(b.name))
    }
  }, last)
}
