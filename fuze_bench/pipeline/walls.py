"""Recognises what stands in place of a page although the site says 200: challenges, consent, logins, error pages.

Nothing is a wall because of a word: an article may be about captchas, and any page may carry a comment form with one.
A wall has little text, and that little is a block of its own, or a title, made of a phrase that walls are known by.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lxml import etree

from fuze_bench.pipeline.bookmarks import Reason

#: A page with more to read than this, or more to see, is not a wall.
_MOST_READ_CHARS = 700
_MOST_SEEN_CHARS = 2_000
#: An error page has a headline and a sentence.
_MOST_SEEN_CHARS_OF_AN_ERROR = 300
#: What a consent page may say beside consent: the site's name, a headline.
_MOST_OTHER_CHARS = 80

_INLINE = frozenset(
    "a abbr b bdi bdo big cite code em font i ins kbd mark q s small span strong sub sup u".split()
)
_UNSEEN = frozenset("script style template svg head title iframe object".split())
_IS_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)


def _phrases(*alternatives: str, beside: int = 40) -> re.Pattern[str]:
    """A block that begins with one of these, after no more than a mark or a name, and has little beside it."""
    return re.compile(rf"\W*(?:{'|'.join(alternatives)}).{{0,{beside}}}", re.IGNORECASE)


#: Blocks and titles that only a challenge has.
_CHALLENGES = _phrases(
    r"just a moment\W*$",
    r"one moment, please\W*$",
    r"(?:please wait\W*)?(?:we are |we're )?checking (?:your browser|if the site connection is secure)",
    r"attention required!\s*\|\s*cloudflare",
    r"(?:please )?enable (?:java ?script and cookies|cookies and java ?script|cookies) to continue",
    r"(?:please )?(?:verify|confirm)(?:ing)? (?:that )?you(?: are|'re|’re) (?:a )?(?:human|not a (?:ro)?bot)",
    r"verify you are human by completing",
    r"are you a (?:ro)?bot\?\W*$",
    r"are you (?:a )?human\?\W*$",
    r"(?:i'm|i am) not a robot\W*$",
    r"(?:press|click) (?:&|and) hold (?:the button )?to confirm",
    r"pardon our interruption",
    r"sorry, you have been blocked",
    r"you (?:have been|are being) rate limited",
    r"request unsuccessful\W+incapsula incident id",
    r"(?:ddos protection by|security check by) \w+",
    r"(?:complete|solve) the (?:captcha|security check|puzzle) to (?:continue|proceed|access)",
    r"(?:please )?complete the security check to (?:continue|proceed|access)",
    r"our systems have detected unusual traffic",
    r"we (?:have )?detected unusual (?:traffic|activity) from",
    r"human verification\W*$",
    r"[\w.-]+ needs to review the security of your connection",
    r"(?:einen|ein) moment(?:,)?(?: bitte)?\s*(?:…|\.\.\.)?$",
    r"(?:ihr browser wird (?:überprüft|geprüft)|überprüfung ihres browsers)",
    r"bestätigen sie, dass sie (?:ein mensch|kein roboter) sind",
    r"sind sie ein roboter\?\W*$",
    r"un instant\s*(?:…|\.\.\.)$",
    r"vérification (?:de votre navigateur|que vous êtes humain)",
    r"(?:veuillez )?(?:confirmer|confirmez|vérifiez) que vous (?:êtes humain|n['’]êtes pas un robot)",
    r"un momento\s*(?:…|\.\.\.)$",
    r"(?:verifique|confirme|verifica|confirma) que (?:usted )?(?:es|eres) (?:un )?humano",
    r"(?:comprobando|verificando) (?:su|tu|seu) navegador",
    r"(?:verifica|conferma) di essere (?:un )?(?:umano|essere umano)",
    r"controleren of u een mens bent",
    r"проверка (?:вашего )?браузера",
    r"подтвердите, что вы (?:человек|не робот)",
    r"请稍候\W*$",
    r"しばらくお待ちください\W*$",
    beside=120,
)
#: Of a widget or a challenge's machinery. Sites put some of these into ordinary pages as well.
_MACHINERY = {
    "Cloudflare": re.compile(
        r"_cf_chl_opt|cf-chl-|cf-turnstile|challenges\.cloudflare\.com|/cdn-cgi/challenge-"
    ),
    "PerimeterX": re.compile(r"px-captcha|captcha\.px-cdn\.net|_pxAppId"),
    "DataDome": re.compile(r"captcha-delivery\.com|ddCaptchaEncoded"),
    "Imperva": re.compile(r"_Incapsula_Resource"),
    "Akamai": re.compile(r"sec-if-cpt-container|/_sec/cp_challenge"),
    "AWS WAF": re.compile(r"awswaf\.com|gokuProps|AwsWafIntegration"),
    "hCaptcha": re.compile(r"\bh-captcha\b|hcaptcha\.com"),
    "reCAPTCHA": re.compile(r"\bg-recaptcha\b|google\.com/recaptcha"),
}
#: The challenge is the page if this little is to be read beside its machinery.
_MOST_READ_CHARS_OF_A_CHALLENGE = 60

_DENIED = re.compile(r"access denied\W*(?:you don't have permission to access .*)?", re.IGNORECASE)
_AKAMAI_REFERENCE = re.compile(r"\breference\s*#\s*[0-9a-f.]{8,}", re.IGNORECASE)

_LOGINS = _phrases(
    r"(?:please |you must |you need to |you have to )?(?:log|sign) ?in (?:or (?:register|sign up|create an account|subscribe) )?"
    r"to (?:continue|read|view|see|access|keep)",
    r"(?:please )?(?:subscribe|register|sign up|join)(?: now| today)? to (?:continue|read|keep|unlock|access|view)",
    r"you must be (?:logged|signed) in to (?:view|see|read|access)",
    r"create (?:a free|an) account to (?:continue|read|keep|access|view)",
    r"th(?:is|e) (?:article|content|story|page) is (?:for|only for|available (?:only )?to|reserved for|exclusively for) "
    r"(?:paying |registered )?(?:subscribers|members|users)",
    r"(?:subscribers|members) only\W*$",
    r"you(?: have|['’]ve) (?:reached|read) (?:your|all your|the) (?:\w+ )?(?:limit|free articles)",
    r"(?:bitte )?(?:melden sie sich an|loggen sie sich ein|einloggen|anmelden)\W*um (?:weiterzulesen|fortzufahren|diesen)",
    r"(?:jetzt )?(?:abonnieren|registrieren)\W*(?:und|um) weiter(?:zu)?lesen",
    r"(?:dieser|diesen) (?:artikel|inhalt) (?:ist|können) nur (?:für )?(?:abonnenten|registrierte|mitglieder)",
    r"(?:connectez-vous|identifiez-vous|abonnez-vous|inscrivez-vous) pour (?:continuer|lire|accéder|poursuivre)",
    r"(?:cet article|ce contenu) est réservé (?:aux|à nos) abonnés",
    r"(?:inicia sesión|inicie sesión|suscríbete|suscríbase|regístrate) para (?:continuar|seguir|leer|ver|acceder)",
    r"(?:contenido|artículo) (?:exclusivo|solo) para (?:suscriptores|socios)",
    r"(?:accedi|abbonati|registrati) per (?:continuare|leggere|proseguire)",
    r"(?:entre|faça login|assine|inicie sessão) para (?:continuar|ler|ver|acessar)",
    r"log in om (?:verder|door) te (?:lezen|gaan)",
    r"zaloguj się,? aby (?:kontynuować|czytać|przeczytać)",
    r"(?:войдите|авторизуйтесь|подпишитесь),? чтобы (?:продолжить|читать|прочитать)",
    r"请?登录后?(?:继续|查看|阅读)",
    r"続きを読むには|ログインして(?:続き|ください)",
)

_CONSENT = re.compile(
    r"cookie|consent|gdpr|einwilligung|zustimm|datenschutz|consentement|vie privée|consentimiento|privacidad|consenso"
    r"|privacy|partners?\b|partnern?\b|partenaires|tracking|advert|werbung|publicit|personali[sz]|plik(?:ów|i) cookie"
    r"|файл(?:ы|ов) куки|クッキー|プライバシー",
    re.IGNORECASE,
)
_ACCEPT = re.compile(
    r"\W*(?:(?:i )?accept|agree|allow|reject|refuse|manage|deny|save|akzeptier|alle[sn]? (?:akzeptier|ablehn|accepter|weiger)"
    r"|zustimm|ablehn|einstellung|tout (?:accepter|refuser)|accepter|refuser|gérer|acept|rechaz|configurar|accett|rifiut"
    r"|gestisci|aceit|rejeitar|akkoord|accepteer|weiger|akceptuj|odrzuć|zaakceptuj|принять|отклонить|同意|接受|拒否|すべて許可"
    r"|before you continue|bevor sie fortfahren|avant de continuer)",
    re.IGNORECASE,
)
_ACCEPT_CHARS = 60

_ERRORS = {
    Reason.NOT_FOUND: re.compile(
        r"\W*(?:(?:error |http )?404\W+)?(?:page|file|document)?\s*not found\W*(?:404\W*)?|(?:error |http )?404(?: error)?",
        re.IGNORECASE,
    ),
    Reason.SERVER_ERROR: re.compile(
        r"\W*(?:(?:error |http )?50[0-4]\W+)?(?:internal server error|bad gateway|service (?:temporarily )?unavailable"
        r"|gateway time-?out)\W*(?:50[0-4]\W*)?",
        re.IGNORECASE,
    ),
}


def wall(tree: Any, title: str | None, text: str) -> tuple[Reason, str] | None:
    """What stands in place of the page, as a reason and a few words; None for a page.

    `tree` is the parsed page, `title` and `text` are what was found on it.
    """
    if len(text) > _MOST_READ_CHARS:
        return None
    blocks = list(_seen(tree))
    seen_chars = sum(map(len, blocks))
    if seen_chars > _MOST_SEEN_CHARS:
        return None
    headlines = [each for each in (title, *map(str, tree.xpath("//title/text()"))) if each]
    if (headlines or blocks) and seen_chars <= _MOST_SEEN_CHARS_OF_AN_ERROR:
        for reason, pattern in _ERRORS.items():
            if all(map(pattern.fullmatch, [*headlines, *blocks[:1]])):
                return reason, f"an error page, sent as if it were none: {(headlines or blocks)[0][:80]!r}"
    what = (
        _challenge(tree, [*headlines, *blocks], text)
        or _first_match(_LOGINS, "a login", [*headlines, *blocks])
        or _consent(blocks, headlines)
    )
    return None if what is None else (Reason.BLOCKED, what)


def _challenge(tree: Any, blocks: list[str], text: str) -> str | None:
    if any(map(_DENIED.fullmatch, blocks)) and any(map(_AKAMAI_REFERENCE.search, blocks)):
        return "a refusal by Akamai"
    said = _first_match(_CHALLENGES, "a challenge", blocks)
    if said is not None:
        return said
    if len(text) > _MOST_READ_CHARS_OF_A_CHALLENGE:
        return None
    parts = tree.xpath("//@id | //@class | //@src | //@action | //@data-src | //script/text()")
    found = (name for name, pattern in _MACHINERY.items() if any(map(pattern.search, parts)))
    name = next(found, None)
    return None if name is None else f"a challenge by {name}"


def _first_match(pattern: re.Pattern[str], what: str, blocks: list[str]) -> str | None:
    said = next(filter(pattern.fullmatch, blocks), None)
    return None if said is None else f"{what}: {said[:80]!r}"


def _consent(blocks: list[str], headlines: list[str]) -> str | None:
    """Somebody asks for consent and offers buttons for it, and there is nothing else."""
    about = [block for block in blocks if _CONSENT.search(block)]
    buttons = [block for block in blocks if len(block) <= _ACCEPT_CHARS and _ACCEPT.match(block)]
    others = [
        block for block in blocks if block not in about and block not in buttons and block not in headlines
    ]
    if not about or not buttons or sum(map(len, others)) > _MOST_OTHER_CHARS:
        return None
    return f"a question for consent: {about[0][:80]!r}"


def _seen(tree: Any) -> Iterator[str]:
    """The blocks of text that a browser would show, `<noscript>` included, each on one line."""
    parts: list[str] = []
    unseen: Any = None
    for event, node in etree.iterwalk(tree, events=("start", "end")):
        starts = event == "start"
        if unseen is None and starts and _is_unseen(node):
            unseen = node
        if unseen is None:
            if node.tag not in _INLINE:
                yield from _joined(parts)
            parts.append((node.text if starts else node.tail) or "")
        elif node is unseen and not starts:
            unseen = None
            parts.append(node.tail or "")
    yield from _joined(parts)


def _joined(parts: list[str]) -> Iterator[str]:
    """The parts as one line, unless it is empty; the list is emptied."""
    line = " ".join("".join(parts).split())
    parts.clear()
    if line:
        yield line


def _is_unseen(node: Any) -> bool:
    return (
        node.tag in _UNSEEN
        or "hidden" in node.attrib
        or node.get("aria-hidden") == "true"
        or (node.tag == "dialog" and "open" not in node.attrib)
        or bool(_IS_HIDDEN.search(node.get("style") or ""))
    )
