"""German phrases: four topics, frames and site words."""

from .language import Language, SiteWords, phrases, topic

GERMAN = Language(
    "de",
    phrases(
        """
        {S} {p} {a}.
        {S} {p}, und {t} {q} {a}.
        {o} {s} {p}.
        {o} {s} {p} {a}.
        {S} {p}, aber {t} {q}.
        „{S} {p}“, sagt {name}.
        """
    ),
    phrases(
        """
        Klar ist:
        Fachleute betonen immer wieder:
        Die Erfahrung zeigt:
        Kurz gesagt:
        Aus der Praxis wissen wir:
        Für viele überraschend:
        Die Zahlen belegen es:
        """
    ),
    phrases(
        """
        auch in kleineren Städten
        ohne zusätzliche Kosten
        schon seit dem Jahr {year}
        nach Angaben der Behörden
        in rund {n} Prozent der Fälle
        trotz aller Schwierigkeiten
        während der kalten Jahreszeit
        mit großem Erfolg
        """
    ),
    (
        topic(
            "Gärten und Pflanzen",
            """der alte Apfelbaum
            das Hochbeet auf der Terrasse
            die Blumenwiese
            ein geschütztes Gewächshaus
            der lehmige Boden
            die Hecke am Zaun""",
            """braucht im Frühling viel Wasser
            bietet Bienen und Käfern Nahrung
            schützt das Gemüse vor dem Wind
            trägt bis in den Oktober süße Früchte
            verbessert die Qualität der Erde
            übersteht selbst längere Trockenheit""",
        ),
        topic(
            "Verkehr",
            """die neue Straßenbahn
            der Radweg am Fluss
            ein günstiges Monatsticket
            der überfüllte Bahnhof
            die geplante Umgehungsstraße
            das Elektroauto""",
            """verbindet die Vororte mit dem Zentrum
            entlastet die Innenstadt vom Lärm
            kostet die Gemeinde mehrere Millionen Euro
            verkürzt die tägliche Fahrt zur Arbeit
            überzeugt besonders die jüngeren Fahrgäste
            verursacht weniger Abgase als früher""",
        ),
        topic(
            "Wirtschaft",
            """der Mittelstand
            die Europäische Zentralbank
            ein höherer Mindestlohn
            das Handwerk in Bayern
            die Inflation
            der Wohnungsmarkt""",
            """leidet unter steigenden Zinsen
            sucht dringend ausgebildete Fachkräfte
            beeinflusst die Preise für Lebensmittel
            schafft Arbeitsplätze auf dem Land
            verändert das Verhalten der Käufer
            erfordert eine schnelle Entscheidung der Regierung""",
        ),
        topic(
            "Informatik",
            """die Warteschlange
            ein verteiltes System
            der Hintergrundprozess
            die relationale Datenbank
            das Betriebssystem
            ein fehlerhafter Auftrag""",
            """speichert jede Änderung dauerhaft auf der Festplatte
            verteilt die Last auf mehrere Rechner
            wiederholt den Vorgang nach einer kurzen Pause
            benötigt mehr Arbeitsspeicher als erwartet
            beantwortet Anfragen innerhalb weniger Millisekunden
            verliert bei einem Absturz keine Daten""",
        ),
    ),
    SiteWords(
        ("Startseite", "Nachrichten", "Meinung", "Sport", "Angebote", "Newsletter", "Über uns", "Anmelden"),
        "Wir verwenden Cookies für Statistik und Werbung. Alle akzeptieren oder Einstellungen öffnen.",
        "Anzeige: heute bestellen und die Hälfte sparen",
        "Das könnte Sie auch interessieren",
        "Kommentare",
        "Seite teilen",
        "Alle Rechte vorbehalten. Impressum, Datenschutz.",
    ),
)
