"""Pages that stand in place of another one, and pages that only look like it: body of the page by name."""

from __future__ import annotations

_LOREM = (
    "The ferry leaves the small harbour at seven, when the fishermen are already back and the market opens. "
    "It crosses the bay in forty minutes, past the lighthouse and the two islands where seals rest on the rocks. "
)


def _page(title: str, body: str, head: str = "") -> bytes:
    return f"<!DOCTYPE html><html><head><meta charset='utf-8'><title>{title}</title>{head}</head><body>{body}</body></html>".encode()


WALLS: dict[str, bytes] = {
    "cloudflare": _page(
        "Just a moment...",
        "<noscript><h1>Enable JavaScript and cookies to continue</h1></noscript>"
        "<script>window._cf_chl_opt={cType:'managed'};</script>",
    ),
    "switch-javascript-on": _page(
        "Just a moment...",
        "<noscript><h1>Please switch JavaScript on and reload</h1></noscript><div id='check'><h1>Checking that you are human"
        "</h1><p>This check is automatic. You will be sent on to the page shortly. Reference 0000000000.</p></div>",
        head="<meta http-equiv='refresh' content='5'>",
    ),
    "cloudflare-verify": _page(
        "example.org",
        "<h1>example.org</h1><h2>Verify you are human by completing the action below.</h2><div class='cf-turnstile'></div>"
        "<p>example.org needs to review the security of your connection before proceeding.</p><p>Ray ID: 8f00</p>",
    ),
    "cloudflare-blocked": _page(
        "Attention Required! | Cloudflare",
        "<h1>Sorry, you have been blocked</h1><h2>You are unable to access example.org</h2><h3>Why have I been blocked?</h3>"
        "<p>This website is using a security service to protect itself from online attacks. The action you just performed"
        " triggered the security solution.</p>",
    ),
    "cloudflare-old": _page(
        "example.org", "<h1>Checking your browser before accessing example.org.</h1><p>This is automatic.</p>"
    ),
    "turnstile-alone": _page(
        "example.org", "<h1>One more step</h1><form><div class='cf-turnstile' data-sitekey='x'></div></form>"
    ),
    "perimeterx": _page(
        "Access to this page has been denied",
        "<p>Press &amp; Hold to confirm you are a human (and not a bot).</p><div id='px-captcha'></div>",
    ),
    "datadome": _page(
        "example.org",
        "<p>Please enable JS and disable any ad blocker</p><script src='https://ct.captcha-delivery.com/c.js'></script>",
    ),
    "akamai": _page(
        "Access Denied",
        "<h1>Access Denied</h1>You don't have permission to access \"http://example.org/\" on this server."
        "<p>Reference #18.2d351ab8.1557333295.a4e16ab</p>",
    ),
    "imperva": _page(
        "",
        "<iframe id='main-iframe' src='/_Incapsula_Resource?CWUDNSAI=9'>Request unsuccessful. Incapsula incident ID: 1-2</iframe>",
    ),
    "aws-waf": _page(
        "Human Verification",
        "<h1>Let's confirm you are human</h1><script src='https://x.edge.sdk.awswaf.com/challenge.js'></script>",
    ),
    "robot": _page("example.org", "<h1>Are you a robot?</h1><p>Please tick the box and continue to the site.</p>"),
    "recaptcha-alone": _page("example.org", "<form><div class='g-recaptcha'></div><button>Continue</button></form>"),
    "unusual-traffic": _page(
        "example.org", "<p>Our systems have detected unusual traffic from your computer network.</p><p>IP 192.0.2.1</p>"
    ),
    "interruption": _page(
        "Pardon Our Interruption",
        "<h1>Pardon Our Interruption</h1><p>As you were browsing something about your browser made us think you were a bot.</p>",
    ),
    "challenge-de": _page("Einen Moment, bitte…", "<p>Bestätigen Sie, dass Sie ein Mensch sind.</p>"),
    "challenge-fr": _page("Un instant…", "<h2>Vérification que vous êtes humain. Cela peut prendre quelques secondes.</h2>"),
    "consent-en": _page(
        "Before you continue",
        "<h1>Before you continue to Example</h1><p>We and our 812 partners use cookies and similar techniques to measure"
        " our audience and show personalised advertising.</p><button>Accept all</button><button>Reject all</button>",
    ),
    "consent-de": _page(
        "Beispiel",
        "<h2>Ihre Einwilligung</h2><p>Wir und unsere Partner verwenden Cookies, um Inhalte und Werbung zu personalisieren."
        "</p><a href='#'>Alle akzeptieren</a> <button>Einstellungen</button>",
    ),
    "consent-fr": _page(
        "Exemple",
        "<p>Nous utilisons des cookies avec nos partenaires. Vous pouvez retirer votre consentement.</p>"
        "<button>Tout accepter</button><button>Tout refuser</button>",
    ),
    "login": _page("Example", "<h1>Log in to continue</h1><form><label>Email</label><input><button>Log in</button></form>"),
    "paywall": _page(
        "A walk along the coast - Example",
        f"<h1>A walk along the coast</h1><p>{_LOREM}</p><div><h2>Subscribe to continue reading</h2><p>From 1 a week.</p></div>",
    ),
    "paywall-de": _page(
        "Am Meer entlang", "<h1>Am Meer entlang</h1><p>Die Fähre legt um sieben ab.</p><p>Jetzt abonnieren und weiterlesen</p>"
    ),
    "paywall-fr": _page(
        "Le long de la mer", "<h1>Le long de la mer</h1><p>Le bac part.</p><p>Cet article est réservé aux abonnés</p>"
    ),
    "login-es": _page("Ejemplo", "<p>Inicia sesión para continuar</p><form><input><button>Entrar</button></form>"),
    "login-ru": _page("Пример", "<p>Войдите, чтобы продолжить чтение</p><form><input></form>"),
}  # fmt: skip

PAGES: dict[str, bytes] = {
    "about-cloudflare": _page(
        "Just a moment: how Cloudflare decides",
        "<article><h1>Just a moment: how Cloudflare decides</h1><p>Who has not seen «Checking your browser before accessing»?"
        " Behind that line a script measures how a visitor's browser behaves.</p><p>Whoever looks like a robot has to prove"
        " that he is human.</p></article>",
    ),
    "about-captchas": _page(
        "Are you a robot? A short history of the captcha",
        "<h1>Are you a robot? A short history of the captcha</h1><p>Distorted letters came first, pictures of traffic lights"
        " later; today most tests are never seen.</p>",
    ),
    "jsd-script": _page(
        "Harbour notes",
        f"<p>{_LOREM}</p><script src='/cdn-cgi/challenge-platform/scripts/jsd/main.js'></script>",
    ),
    "incapsula-script": _page(
        "Harbour notes", f"<p>{_LOREM}</p><script src='/_Incapsula_Resource?SWJIYLWA=719d34d3'></script>"
    ),
    "comment-form": _page(
        "Harbour notes",
        f"<article><p>{_LOREM}</p></article><form><h3>Leave a comment</h3><textarea></textarea>"
        "<div class='g-recaptcha'></div><button>Send</button></form>",
    ),
    "cookie-banner": _page(
        "Harbour notes",
        f"<div id='banner'><p>We use cookies to measure our audience.</p><button>Accept all</button></div><p>{_LOREM}</p>",
    ),
    "about-cookies": _page(
        "Baking cookies",
        "<h1>Baking cookies</h1><p>Accept no margarine: butter makes the difference.</p><p>Mix flour, sugar and the eggs,"
        " and let the dough rest in a cold place for an hour before it is rolled out and cut.</p>",
    ),
    "long-teaser": _page(
        "A walk along the coast",
        f"<article>{''.join(f'<p>Day {n}. {_LOREM}</p>' for n in range(5))}</article><h2>Subscribe to continue reading</h2>",
    ),
    "login-help": _page(
        "How to log in",
        "<h1>How to log in</h1><p>To log in to continue where you left off, open the menu and choose «Log in».</p>"
        "<ol><li>Type the address you registered with.</li><li>Type your password.</li><li>Choose «Continue».</li></ol>",
    ),
    "hidden-login": _page(
        "Harbour notes",
        f"<div style='display: none'><h2>Log in to continue</h2></div><dialog><p>Sign in to read</p></dialog><p>{_LOREM}</p>",
    ),
    "login-link": _page("Harbour notes", f"<nav><a href='/login'>Log in</a> <a>Subscribe</a></nav><p>{_LOREM}</p>"),
    "access-denied": _page(
        "Access denied on a share",
        "<h1>Access denied</h1><p>When a share says that access is denied, look at the rights of the folder above it first,"
        " then at those of the share itself.</p>",
    ),
    "about-404": _page(
        "404 Not Found",
        "<h1>404 Not Found</h1><p>This status code says that a server knows no page of that address. It does not say whether"
        " there ever was one, or will be: for pages that are gone for good there is 410.</p><p>Caches may keep the answer;"
        " how long, its headers say. Search engines ask again several times before they forget the address.</p>",
    ),
    "moment-de": _page(
        "Einen Moment, bitte: warum Warten guttut",
        "<h1>Einen Moment, bitte: warum Warten guttut</h1><p>Wer wartet, sieht sich um. Das behauptet jedenfalls eine Studie"
        " über Bahnhöfe, die in diesem Frühjahr erschienen ist.</p>",
    ),
    "short-note": _page("Note", "<p>The bakery by the river is closed until Monday.</p>"),
}  # fmt: skip
