"""Polish, Czech, Russian and Greek phrases: two or three topics each, frames and site words."""

from .language import Language, SiteWords, phrases, topic

POLISH = Language(
    "pl",
    phrases(
        """
        {S} {p} {a}.
        {S} {p}, a {t} {q} {a}.
        {o} {s} {p}.
        {o} {s} {p} {a}.
        {S} {p}, ale {t} {q}.
        „{S} {p}” – twierdzi {name}.
        """
    ),
    phrases(
        """
        W praktyce
        Według wielu badań
        Co roku
        Na pierwszy rzut oka
        Od dawna
        Nic dziwnego, że
        Doświadczenie pokazuje, że
        """
    ),
    phrases(
        """
        w większości regionów kraju
        bez żadnych dodatkowych kosztów
        od {year} roku
        w około {n} procentach przypadków
        mimo licznych trudności
        w miesiącach zimowych
        z dużym powodzeniem
        nawet w małych miastach
        """
    ),
    (
        topic(
            "Przyroda",
            """stary las bukowy
            park narodowy
            rzadki gatunek sowy
            górski potok
            łąka nad rzeką
            bocian biały""",
            """przyciąga turystów przez cały rok
            potrzebuje ochrony przed zanieczyszczeniem
            daje schronienie wielu zwierzętom
            wraca na wiosnę w te same okolice
            zależy od czystej wody i spokoju
            znika z krajobrazu szybciej, niż sądzono""",
        ),
        topic(
            "Gospodarka",
            """rynek pracy
            bank centralny
            mała firma rodzinna
            rosnąca inflacja
            przemysł samochodowy
            nowa ustawa podatkowa""",
            """wpływa na ceny żywności
            zmniejsza zyski przedsiębiorców
            tworzy miejsca pracy dla młodych ludzi
            wymaga szybkich decyzji rządu
            zmienia zwyczaje konsumentów
            przynosi straty już trzeci kwartał""",
        ),
        topic(
            "Programowanie",
            """kolejka zadań
            serwer bazy danych
            proces działający w tle
            błędna konfiguracja
            nowa biblioteka
            rozproszony system""",
            """przetwarza tysiące zapytań na sekundę
            zapisuje każdą zmianę na dysku
            powtarza zadanie po krótkiej przerwie
            ułatwia pracę całego zespołu
            zużywa więcej pamięci niż poprzednio
            chroni dane przed utratą""",
        ),
    ),
    SiteWords(
        ("Strona główna", "Wiadomości", "Opinie", "Sport", "Sklep", "Biuletyn", "O nas", "Zaloguj się"),
        "Używamy plików cookie do mierzenia ruchu. Zaakceptuj wszystkie lub zmień ustawienia.",
        "Reklama: zamów dziś za pół ceny",
        "Zobacz także",
        "Komentarze",
        "Udostępnij stronę",
        "Wszelkie prawa zastrzeżone. Polityka prywatności.",
    ),
)

CZECH = Language(
    "cs",
    phrases(
        """
        {S} {p} {a}.
        {S} {p} a {t} {q} {a}.
        {o} {s} {p}.
        {o} {s} {p} {a}.
        {S} {p}, ale {t} {q}.
        """
    ),
    phrases(
        """
        Zkušenost ukazuje, že
        Odborníci tvrdí, že
        Není divu, že
        Je dobře známo, že
        Mnozí se domnívají, že
        """
    ),
    phrases(
        """
        ve většině krajů
        bez dalších nákladů
        od roku {year}
        přibližně v {n} procentech případů
        navzdory četným obtížím
        během zimních měsíců
        také v menších městech
        """
    ),
    (
        topic(
            "Hudba a divadlo",
            """mladý skladatel
            národní divadlo
            nová opera
            lidová píseň
            pražský orchestr
            jazzový festival""",
            """přitahuje posluchače z celé Evropy
            vypráví příběh staré rodiny
            potřebuje větší podporu ministerstva
            spojuje moderní rytmy s tradicí
            získává příznivé ohlasy kritiků
            hraje každý týden před plným sálem""",
        ),
        topic(
            "Železnice",
            """rychlý vlak do Brna
            opravené nádraží
            lokální trať
            levná jízdenka
            noční spoj
            nový železniční most""",
            """zkracuje cestu o více než hodinu
            slouží především studentům a turistům
            vyžaduje důkladnou rekonstrukci
            přináší užitek celému regionu
            stojí méně než cesta autem
            patří k nejstarším v zemi""",
        ),
    ),
    SiteWords(
        ("Domů", "Zprávy", "Názory", "Sport", "Obchod", "O nás", "Přihlásit se"),
        "Používáme soubory cookie k měření návštěvnosti. Přijmout vše nebo nastavit.",
        "Reklama: objednejte dnes za polovinu",
        "Mohlo by vás zajímat",
        "Komentáře",
        "Sdílet stránku",
        "Všechna práva vyhrazena. Ochrana údajů.",
    ),
)

RUSSIAN = Language(
    "ru",
    phrases(
        """
        {S} {p} {a}.
        {S} {p}, а {t} {q} {a}.
        {o} {s} {p}.
        {o} {s} {p} {a}.
        {S} {p}, но {t} {q}.
        «{S} {p}», — говорит эксперт.
        """
    ),
    phrases(
        """
        На практике
        По данным исследований,
        Каждый год
        На первый взгляд
        Уже давно
        Специалисты отмечают, что
        Опыт показывает, что
        """
    ),
    phrases(
        """
        в большинстве регионов страны
        без дополнительных расходов
        с {year} года
        примерно в {n} процентах случаев
        несмотря на многочисленные трудности
        в зимние месяцы
        с большим успехом
        даже в небольших городах
        """
    ),
    (
        topic(
            "Космос",
            """новый телескоп
            далёкая галактика
            межпланетная станция
            яркая комета
            лунный грунт
            солнечный ветер""",
            """помогает учёным понять строение Вселенной
            меняет свою яркость в течение нескольких дней
            передаёт снимки на Землю каждые сутки
            содержит следы водяного льда
            влияет на работу спутников связи
            движется по вытянутой орбите""",
        ),
        topic(
            "Культура",
            """русский балет
            старинная библиотека
            молодой режиссёр
            выставка живописи
            роман о войне
            областной музей""",
            """привлекает зрителей всех возрастов
            рассказывает о жизни простых людей
            хранит редкие рукописи прошлых веков
            вызывает споры среди критиков
            получает премию на международном фестивале
            соединяет традицию и современность""",
        ),
        topic(
            "Технологии",
            """очередь задач
            сервер приложений
            открытая библиотека
            база данных
            фоновый процесс
            распределённая система""",
            """обрабатывает тысячи запросов в секунду
            сохраняет каждое изменение на диске
            повторяет задание после короткой паузы
            требует больше памяти, чем раньше
            упрощает работу программистов
            продолжает отвечать при сбое сети""",
        ),
    ),
    SiteWords(
        ("Главная", "Новости", "Мнения", "Спорт", "Магазин", "Рассылка", "О нас", "Войти"),
        "Мы используем файлы cookie для учёта посещений. Принять все или настроить.",
        "Реклама: закажите сегодня за полцены",
        "Читайте также",
        "Комментарии",
        "Поделиться страницей",
        "Все права защищены. Политика конфиденциальности.",
    ),
)

GREEK = Language(
    "el",
    phrases(
        """
        {S} {p} {a}.
        {S} {p} και {t} {q} {a}.
        {o} {s} {p}.
        {o} {s} {p} {a}.
        {S} {p}, αλλά {t} {q}.
        """
    ),
    phrases(
        """
        Στην πράξη,
        Σύμφωνα με πολλές μελέτες,
        Κάθε χρόνο
        Με μια πρώτη ματιά,
        Εδώ και πολύ καιρό
        Είναι γνωστό ότι
        """
    ),
    phrases(
        """
        στις περισσότερες περιοχές της χώρας
        χωρίς πρόσθετο κόστος
        από το {year}
        σε περίπου {n} τοις εκατό των περιπτώσεων
        παρά τις μεγάλες δυσκολίες
        κατά τους χειμερινούς μήνες
        ακόμη και στα μικρά χωριά
        """
    ),
    (
        topic(
            "Θάλασσα και νησιά",
            """το μικρό νησί
            το παλιό λιμάνι
            η γαλάζια θάλασσα
            ο έμπειρος ψαράς
            το πλοίο της γραμμής
            η παραλία του χωριού""",
            """προσελκύει επισκέπτες από όλο τον κόσμο
            συνδέει το Αιγαίο με την Αθήνα
            χρειάζεται προστασία από τη ρύπανση
            διατηρεί τον παραδοσιακό του χαρακτήρα
            προσφέρει δουλειά σε πολλές οικογένειες
            γεμίζει ζωή το καλοκαίρι""",
        ),
        topic(
            "Αρχαιολογία",
            """ο αρχαίος ναός
            η ανασκαφή στη Μακεδονία
            το μουσείο της Ακρόπολης
            ένα σπάνιο νόμισμα
            η μαρμάρινη επιγραφή
            το θέατρο της Επιδαύρου""",
            """αποκαλύπτει άγνωστες πτυχές της ιστορίας
            χρονολογείται στον πέμπτο αιώνα
            εντυπωσιάζει τους ερευνητές
            φυλάσσει θησαυρούς μεγάλης αξίας
            μαρτυρεί τις εμπορικές σχέσεις της πόλης
            απαιτεί προσεκτική συντήρηση""",
        ),
    ),
    SiteWords(
        ("Αρχική", "Ειδήσεις", "Απόψεις", "Αθλητισμός", "Κατάστημα", "Ποιοι είμαστε", "Σύνδεση"),
        "Χρησιμοποιούμε cookies για τη μέτρηση επισκέψεων. Αποδοχή όλων ή ρυθμίσεις.",
        "Διαφήμιση: παραγγείλετε σήμερα στη μισή τιμή",
        "Διαβάστε επίσης",
        "Σχόλια",
        "Κοινοποίηση",
        "Με επιφύλαξη παντός δικαιώματος. Όροι χρήσης.",
    ),
)
