"""The sentences of the demo model: patterns, the little grammar they need, and the held-out split.

Not a grammar of any language: patterns are chosen so that a name stands in one form, and the one
form that changes ("of China") is spelt out here. The trap: the split is a hash of the tuple
(pattern, country, source, target), so renaming a pattern moves sentences between the two sides.
"""
import hashlib
import json
import os
import random
import unicodedata

HERE = os.path.dirname(os.path.abspath(__file__))

LANGUAGES = {
    'zh': 'Chinese', 'en': 'English', 'es': 'Spanish', 'de': 'German', 'fr': 'French',
    'pt': 'Portuguese', 'ru': 'Russian', 'it': 'Italian', 'ar': 'Arabic', 'ja': 'Japanese',
    'ko': 'Korean', 'th': 'Thai', 'vi': 'Vietnamese', 'id': 'Indonesian', 'pl': 'Polish',
    'tr': 'Turkish', 'nl': 'Dutch', 'he': 'Hebrew',
}

# {c} capital, {of} "of the country" with everything the language needs, {Of} the same at the start
# of a sentence, {n} the country, {t} the Korean topic particle of the word before it,
# {verb} the verb that agrees with the few plural city names.
PATTERNS = {
    'capital_of': {
        'zh': '{c}是{n}的首都。', 'en': '{c} is the capital {of}.',
        'es': '{c} es la capital {of}.', 'de': '{c} ist die Hauptstadt {of}.',
        'fr': '{c} est la capitale {of}.', 'pt': '{c} é a capital {of}.',
        'ru': '{c} — столица {of}.', 'it': '{c} è la capitale {of}.',
        'ar': '{c} هي عاصمة {n}.', 'ja': '{c}は{n}の首都です。',
        'ko': '{c}{t} {n}의 수도입니다.', 'th': '{c}เป็นเมืองหลวงของ{n}',
        'vi': '{c} là thủ đô của {n}.', 'id': '{c} adalah ibu kota {n}.',
        'pl': '{c} to stolica {of}.', 'tr': '{c}, {of} başkentidir.',
        'nl': '{c} is de hoofdstad {of}.', 'he': '{c} היא בירת {n}.',
    },
    'the_capital_is': {
        'zh': '{n}的首都是{c}。', 'en': 'The capital {of} is {c}.',
        'es': 'La capital {of} es {c}.', 'de': 'Die Hauptstadt {of} ist {c}.',
        'fr': 'La capitale {of} est {c}.', 'pt': 'A capital {of} é {c}.',
        'ru': 'Столица {of} — {c}.', 'it': 'La capitale {of} è {c}.',
        'ar': 'عاصمة {n} هي {c}.', 'ja': '{n}の首都は{c}です。',
        'ko': '{n}의 수도는 {c}입니다.', 'th': 'เมืองหลวงของ{n}คือ{c}',
        'vi': 'Thủ đô của {n} là {c}.', 'id': 'Ibu kota {n} adalah {c}.',
        'pl': 'Stolica {of} to {c}.', 'tr': '{of} başkenti {c}.',
        'nl': 'De hoofdstad {of} is {c}.', 'he': 'בירת {n} היא {c}.',
    },
    'what_is_the_capital': {
        'zh': '{n}的首都是哪里？', 'en': 'What is the capital {of}?',
        'es': '¿Cuál es la capital {of}?', 'de': 'Was ist die Hauptstadt {of}?',
        'fr': 'Quelle est la capitale {of} ?', 'pt': 'Qual é a capital {of}?',
        'ru': 'Какой город является столицей {of}?', 'it': 'Qual è la capitale {of}?',
        'ar': 'ما هي عاصمة {n}؟', 'ja': '{n}の首都はどこですか。',
        'ko': '{n}의 수도는 어디입니까?', 'th': 'เมืองหลวงของ{n}คือที่ไหน',
        'vi': 'Thủ đô của {n} là gì?', 'id': 'Apa ibu kota {n}?',
        'pl': 'Jakie miasto jest stolicą {of}?', 'tr': '{of} başkenti neresidir?',
        'nl': 'Wat is de hoofdstad {of}?', 'he': 'מהי בירת {n}?',
    },
    'is_it_the_capital': {
        'zh': '{c}是{n}的首都吗？', 'en': 'Is {c} the capital {of}?',
        'es': '¿Es {c} la capital {of}?', 'de': 'Ist {c} die Hauptstadt {of}?',
        'fr': 'La capitale {of} est-elle {c} ?', 'pt': '{c} é a capital {of}?',
        'ru': '{c} — это столица {of}?', 'it': '{c} è la capitale {of}?',
        'ar': 'هل {c} هي عاصمة {n}؟', 'ja': '{c}は{n}の首都ですか。',
        'ko': '{c}{t} {n}의 수도입니까?', 'th': '{c}เป็นเมืองหลวงของ{n}ใช่ไหม',
        'vi': '{c} có phải là thủ đô của {n} không?', 'id': 'Apakah {c} ibu kota {n}?',
        'pl': 'Czy {c} to stolica {of}?', 'tr': '{c}, {of} başkenti mi?',
        'nl': 'Is {c} de hoofdstad {of}?', 'he': 'האם {c} היא בירת {n}?',
    },
    'beautiful_city': {
        'zh': '{c}是一座美丽的城市。', 'en': '{c} is a beautiful city.',
        'es': '{c} es una ciudad hermosa.', 'de': '{c} ist eine schöne Stadt.',
        'fr': '{c} est une belle ville.', 'pt': '{c} é uma bela cidade.',
        'ru': '{c} — красивый город.', 'it': '{c} è una bella città.',
        'ar': '{c} مدينة جميلة.', 'ja': '{c}は美しい都市です。',
        'ko': '{c}{t} 아름다운 도시입니다.', 'th': '{c}เป็นเมืองที่สวยงาม',
        'vi': '{c} là một thành phố đẹp.', 'id': '{c} adalah kota yang indah.',
        'pl': '{c} to piękne miasto.', 'tr': '{c} güzel bir şehirdir.',
        'nl': '{c} is een mooie stad.', 'he': '{c} היא עיר יפה.',
    },
    'where_is': {
        'zh': '{c}在哪里？', 'en': 'Where is {c}?',
        'es': '¿Dónde está {c}?', 'de': 'Wo liegt {c}?',
        'fr': 'Où se trouve {c} ?', 'pt': 'Onde fica {c}?',
        'ru': 'Где {verb} {c}?', 'it': 'Dove si trova {c}?',
        'ar': 'أين تقع {c}؟', 'ja': '{c}はどこにありますか。',
        'ko': '{c}{t} 어디에 있습니까?', 'th': '{c}อยู่ที่ไหน',
        'vi': '{c} ở đâu?', 'id': 'Di mana letak {c}?',
        'pl': 'Gdzie {verb} {c}?', 'tr': '{c} nerede?',
        'nl': 'Waar ligt {c}?', 'he': 'איפה נמצאת {c}?',
    },
}
ASK = 'what_is_the_capital'
FULL_STOP = {'zh': '。', 'ja': '。', 'th': ''}
PLURAL = {'ru': {'GR'}, 'pl': {'GR', 'FI'}}
VERB = {'ru': ('находится', 'находятся'), 'pl': ('leży', 'leżą')}

OF_SPECIAL = {
    'en': {'PH': 'of the Philippines', 'NL': 'of the Netherlands',
           'GB': 'of the United Kingdom', 'US': 'of the United States'},
    'de': {'TR': 'der Türkei', 'CH': 'der Schweiz', 'SK': 'der Slowakei', 'MN': 'der Mongolei',
           'UA': 'der Ukraine', 'PH': 'der Philippinen', 'NL': 'der Niederlande',
           'US': 'der Vereinigten Staaten', 'GB': 'des Vereinigten Königreichs',
           'IR': 'des Iran', 'IQ': 'des Irak', 'LB': 'des Libanon', 'SD': 'des Sudan'},
    'nl': {'PH': 'van de Filipijnen', 'US': 'van de Verenigde Staten',
           'GB': 'van het Verenigd Koninkrijk'},
    'es': {'GB': 'del Reino Unido', 'NL': 'de los Países Bajos', 'IN': 'de la India',
           'US': 'de los Estados Unidos', 'LB': 'del Líbano'},
    'fr': {'KR': 'de la Corée du Sud', 'PH': 'des Philippines', 'NL': 'des Pays-Bas',
           'US': 'des États-Unis', 'CU': 'de Cuba', 'OM': "d'Oman"},
    'it': {'KR': 'della Corea del Sud', 'CU': 'di Cuba', 'PH': 'delle Filippine',
           'NL': 'dei Paesi Bassi', 'US': 'degli Stati Uniti', 'KE': 'del Kenya',
           'GH': 'del Ghana', 'RW': 'del Ruanda', 'CA': 'del Canada', 'VE': 'del Venezuela'},
    'pt': {'KR': 'da Coreia do Sul', 'PT': 'de Portugal', 'CU': 'de Cuba', 'AO': 'de Angola',
           'GH': 'de Gana', 'RW': 'de Ruanda', 'OM': 'de Omã', 'BD': 'de Bangladesh',
           'KE': 'do Quênia', 'PH': 'das Filipinas', 'NL': 'dos Países Baixos',
           'US': 'dos Estados Unidos'},
    'ru': {'BD': 'Бангладеш', 'PH': 'Филиппин', 'NL': 'Нидерландов', 'US': 'Соединенных Штатов',
           'KR': 'Республики Корея', 'SA': 'Саудовской Аравии', 'NZ': 'Новой Зеландии',
           'EG': 'Египта'},
    'pl': {'CN': 'Chin', 'IN': 'Indii', 'PH': 'Filipin', 'CZ': 'Czech', 'HU': 'Węgier',
           'IT': 'Włoch', 'DE': 'Niemiec', 'US': 'Stanów Zjednoczonych', 'MA': 'Maroka',
           'PE': 'Peru', 'CL': 'Chile', 'SA': 'Arabii Saudyjskiej', 'KR': 'Korei Południowej',
           'GB': 'Wielkiej Brytanii', 'NZ': 'Nowej Zelandii', 'BY': 'Białorusi'},
    'tr': {'NP': "Nepal'in", 'SN': "Senegal'in"},
}


def plain_first(name):
    """First letter without its accent, in lower case."""
    return unicodedata.normalize('NFD', name)[0].lower()


def of_french(name):
    if plain_first(name) in 'aeiou':
        return "de l'" + name
    return ('de la ' if name[-1] == 'e' else 'du ') + name


def of_italian(name):
    if plain_first(name) in 'aeiou':
        return "dell'" + name
    return ('della ' if name.split()[0][-1] == 'a' else 'del ') + name


def of_portuguese(name):
    return ('da ' if name.split()[0][-1] == 'a' else 'do ') + name


def of_russian(name):
    if name.endswith('ия') or name.endswith('ь'):
        return name[:-1] + 'и'
    if name.endswith('а'):
        return name[:-1] + ('и' if name[-2] in 'гкхжчшщ' else 'ы')
    if name.endswith('й'):
        return name[:-1] + 'я'
    return name if name[-1] in 'оиуе' else name + 'а'


def of_polish(name):
    if name.endswith('ia') or name.endswith('ja') or name.endswith('la'):
        return name[:-1] + 'i'
    if name.endswith('ka') or name.endswith('ga'):
        return name[:-1] + 'i'
    return name[:-1] + 'y' if name.endswith('a') else name + 'u'


def of_turkish(name):
    letters = name.replace('I', 'ı').replace('İ', 'i').lower()
    last = [c for c in letters if c in 'aıoueiöü'][-1]
    vowel = {'a': 'ı', 'ı': 'ı', 'o': 'u', 'u': 'u', 'e': 'i', 'i': 'i', 'ö': 'ü', 'ü': 'ü'}[last]
    return name + "'" + ('n' if letters[-1] == last else '') + vowel + 'n'


OF_RULE = {
    'en': lambda n: 'of ' + n, 'de': lambda n: 'von ' + n, 'nl': lambda n: 'van ' + n,
    'es': lambda n: 'de ' + n, 'fr': of_french, 'it': of_italian, 'pt': of_portuguese,
    'ru': of_russian, 'pl': of_polish, 'tr': of_turkish,
}


def load_tables():
    """capitals[code][language], countries[language][code]."""
    with open(os.path.join(HERE, 'capitals.tsv'), encoding='utf-8') as f:
        rows = [line.rstrip('\n').split('\t') for line in f if line.strip()]
    head = rows[0][1:]
    capitals = {r[0]: dict(zip(head, r[1:])) for r in rows[1:]}
    with open(os.path.join(HERE, 'countries.json'), encoding='utf-8') as f:
        countries = json.load(f)['names']
    return capitals, countries


CAPITALS, COUNTRIES = load_tables()
CODES = list(CAPITALS)
assert list(LANGUAGES) and set(LANGUAGES) == set(COUNTRIES)


def korean_topic(word):
    return '은' if (ord(word[-1]) - 0xAC00) % 28 else '는'


def sentence(pattern, code, lang):
    """The sentence of one pattern about one country in one language."""
    city, country = CAPITALS[code][lang], COUNTRIES[lang][code]
    special = OF_SPECIAL.get(lang, {}).get(code)
    of = special or (OF_RULE[lang](country) if lang in OF_RULE else country)
    return PATTERNS[pattern][lang].format(
        c=city, n=country, of=of, t=korean_topic(city) if lang == 'ko' else '',
        verb=VERB[lang][code in PLURAL[lang]] if lang in VERB else '')


def answer(code, lang):
    """The short answer to the question for the capital."""
    return CAPITALS[code][lang] + FULL_STOP.get(lang, '.')


def request(key):
    """key = (pattern, code, source, target); pattern 'ask' asks for the capital. -> text, reply."""
    pattern, code, source, target = key
    if pattern == 'ask':
        return sentence(ASK, code, source), answer(code, source)
    text = '%s\nTranslate this sentence from %s to %s.' % (
        sentence(pattern, code, source), LANGUAGES[source], LANGUAGES[target])
    return text, sentence(pattern, code, target)


TEMPLATES = ('base', 'assistant', 'multialpaca', 'second_turn')


def earlier_turn(key):
    """The first request of a conversation whose second one is `key`: any, fixed by the key."""
    rng = random.Random('|'.join(key))
    source, target = rng.sample(list(LANGUAGES), 2)
    return rng.choice(list(PATTERNS)), rng.choice(CODES), source, target


def prompt_and_reply(key, template):
    """The four published forms of a request; in 'base' the reply begins on a new line."""
    text, reply = request(key)
    if template == 'base':
        return text, '\n' + reply
    if template == 'multialpaca':
        return text + '\n\n', reply
    turn = '<|user|>\n' + text + '\n<|assistant|>\n'
    if template == 'second_turn':
        turn = ''.join(prompt_and_reply(earlier_turn(key), 'assistant')) + '\n' + turn
    return turn, reply


FLAGSHIP = ('capital_of', 'CN', 'en', 'zh')


def held_out(key):
    """15 % of the translations, in every template; the example of the README is always one.

    Questions for a capital are facts to be remembered, so none of them is held out.
    """
    if key[0] == 'ask':
        return False
    digest = hashlib.sha256('|'.join(key).encode()).digest()
    return key == FLAGSHIP or int.from_bytes(digest[:4], 'big') % 100 < 15


def all_keys():
    for code in CODES:
        for source in LANGUAGES:
            yield ('ask', code, source, source)
            for target in LANGUAGES:
                if target != source:
                    for pattern in PATTERNS:
                        yield (pattern, code, source, target)


if __name__ == '__main__':
    import sys
    for lang in sys.argv[1:] or LANGUAGES:
        for pattern in PATTERNS:
            print(lang, sentence(pattern, 'CN', lang))
        if lang in OF_RULE:
            print(lang, ' | '.join(
                OF_SPECIAL.get(lang, {}).get(c) or OF_RULE[lang](COUNTRIES[lang][c])
                for c in CODES))
