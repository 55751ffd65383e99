"""French, Spanish and Italian phrases: two to four topics each, frames and site words."""

from .language import Language, SiteWords, phrases, topic

FRENCH = Language(
    "fr",
    phrases(
        """
        {S} {p} {a}.
        {S} {p}, et {t} {q} {a}.
        {o} {s} {p}.
        {o} {s} {p} {a}.
        {S} {p}, mais {t} {q}.
        « {S} {p} », explique {name}.
        """
    ),
    phrases(
        """
        En pratique,
        Selon plusieurs études,
        Chaque année,
        Pour beaucoup de gens,
        À première vue,
        Depuis longtemps,
        Contrairement aux idées reçues,
        """
    ),
    phrases(
        """
        dans la plupart des régions
        sans coût supplémentaire
        depuis l'année {year}
        dans environ {n} % des cas
        malgré de nombreuses difficultés
        pendant les mois d'hiver
        avec beaucoup de succès
        même dans les petites villes
        """
    ),
    (
        topic(
            "Cuisine",
            """la pâte feuilletée
            le beurre salé
            un bouillon de légumes
            la sauce aux champignons
            le vieux fromage de chèvre
            une poêle bien chaude""",
            """donne du goût aux plats les plus simples
            demande une heure de repos au réfrigérateur
            remplace la crème dans cette recette
            accompagne parfaitement le poisson grillé
            rappelle les repas de notre enfance
            relève la saveur des pommes de terre""",
        ),
        topic(
            "Littérature",
            """le roman historique
            la jeune écrivaine
            une lettre oubliée
            le poème d'ouverture
            la bibliothèque municipale
            le personnage principal""",
            """raconte la vie d'un village de montagne
            mêle le souvenir et la fiction
            touche un public toujours plus large
            cache un secret jusqu'au dernier chapitre
            décrit la société de son époque
            mérite une nouvelle traduction""",
        ),
        topic(
            "Santé",
            """le médecin de famille
            la campagne de vaccination
            un régime équilibré
            l'hôpital universitaire
            le sommeil
            l'activité physique""",
            """réduit le risque de maladies cardiaques
            protège les enfants contre la rougeole
            améliore la qualité de vie des patients
            soulage les douleurs chroniques
            joue un rôle essentiel dans la prévention
            renforce la mémoire et l'attention""",
        ),
        topic(
            "Environnement",
            """le parc naturel
            la centrale solaire
            une rivière polluée
            la forêt de chênes
            le réchauffement climatique
            le loup gris""",
            """abrite des centaines d'espèces d'oiseaux
            menace l'équilibre des écosystèmes
            fournit de l'électricité à toute la vallée
            inquiète les agriculteurs de la région
            retrouve peu à peu son état d'origine
            attire les visiteurs au printemps""",
        ),
    ),
    SiteWords(
        ("Accueil", "Actualités", "Opinions", "Sport", "Boutique", "Infolettre", "À propos", "Se connecter"),
        "Nous utilisons des cookies pour mesurer l'audience. Tout accepter ou personnaliser.",
        "Publicité : commandez aujourd'hui à moitié prix",
        "À lire aussi",
        "Commentaires",
        "Partager cette page",
        "Tous droits réservés. Mentions légales.",
    ),
)

SPANISH = Language(
    "es",
    phrases(
        """
        {S} {p} {a}.
        {S} {p}, y {t} {q} {a}.
        {o} {s} {p}.
        {o} {s} {p} {a}.
        {S} {p}, pero {t} {q}.
        «{S} {p}», afirma {name}.
        """
    ),
    phrases(
        """
        En la práctica,
        Según varios estudios,
        Cada año,
        Para muchas personas,
        A primera vista,
        Desde hace mucho tiempo,
        Sin lugar a dudas,
        """
    ),
    phrases(
        """
        en la mayoría de las regiones
        sin ningún coste adicional
        desde el año {year}
        en torno al {n} % de los casos
        a pesar de las dificultades
        durante los meses de invierno
        con mucho éxito
        incluso en los pueblos pequeños
        """
    ),
    (
        topic(
            "Viajes",
            """la vieja estación de tren
            el camino de la costa
            un pueblo blanco de Andalucía
            la plaza mayor
            el mercado de los domingos
            una pensión familiar""",
            """recibe a miles de viajeros
            ofrece vistas inolvidables sobre el mar
            conserva el encanto de otra época
            sorprende por su tranquilidad
            une dos ciudades muy distintas
            enseña la cara más amable del país""",
        ),
        topic(
            "Fútbol",
            """el equipo visitante
            la nueva entrenadora
            un delantero de veinte años
            el estadio municipal
            la defensa central
            el portero suplente""",
            """marca la diferencia en los últimos minutos
            domina el partido desde el principio
            pierde el balón con demasiada frecuencia
            celebra la victoria con los aficionados
            necesita tres puntos para seguir en primera división
            corre más que cualquier rival""",
        ),
        topic(
            "Historia",
            """el imperio romano
            una carta del siglo quince
            la ruta de la plata
            el castillo abandonado
            la reina Isabel
            el archivo nacional""",
            """guarda documentos de gran valor
            explica el origen de la ciudad
            cambia las fronteras del reino
            sobrevive a guerras y terremotos
            une el norte y el sur de la península
            despierta el interés de los investigadores""",
        ),
        topic(
            "Tecnología",
            """el servidor principal
            la cola de tareas
            un programa de código abierto
            la inteligencia artificial
            el teléfono móvil
            la base de datos""",
            """procesa miles de peticiones por segundo
            guarda una copia de cada mensaje
            facilita el trabajo de los programadores
            consume menos energía que antes
            transforma la manera de aprender
            responde aunque la red falle""",
        ),
    ),
    SiteWords(
        ("Inicio", "Noticias", "Opinión", "Deportes", "Tienda", "Boletín", "Quiénes somos", "Iniciar sesión"),
        "Utilizamos cookies para medir las visitas. Aceptar todas o configurar.",
        "Publicidad: compre hoy a mitad de precio",
        "También le puede interesar",
        "Comentarios",
        "Compartir esta página",
        "Todos los derechos reservados. Aviso legal.",
    ),
)

ITALIAN = Language(
    "it",
    phrases(
        """
        {S} {p} {a}.
        {S} {p}, e {t} {q} {a}.
        {o} {s} {p}.
        {o} {s} {p} {a}.
        {S} {p}, ma {t} {q}.
        """
    ),
    phrases(
        """
        In pratica,
        Secondo diversi studi,
        Ogni anno,
        Per molte persone,
        A prima vista,
        Da molto tempo,
        """
    ),
    phrases(
        """
        nella maggior parte delle regioni
        senza alcun costo aggiuntivo
        dall'anno {year}
        in circa il {n} % dei casi
        nonostante le difficoltà
        durante i mesi invernali
        anche nelle città più piccole
        """
    ),
    (
        topic(
            "Arte",
            """l'affresco della cappella
            il giovane pittore
            la mostra di Firenze
            una statua di marmo
            il museo civico
            la cupola del duomo""",
            """racconta la storia di una famiglia nobile
            attira visitatori da tutta Europa
            unisce la luce e il colore con grande equilibrio
            richiede un restauro lungo e costoso
            mostra l'influenza dei maestri fiamminghi
            custodisce opere poco conosciute""",
        ),
        topic(
            "Vino e cucina",
            """il vino rosso
            la pasta fatta in casa
            l'olio d'oliva
            il formaggio stagionato
            la ricetta della nonna
            un piatto di pesce""",
            """accompagna bene la carne alla griglia
            nasce da ingredienti semplici e genuini
            richiede pazienza e una buona dose di esperienza
            conserva il profumo della terra
            cambia sapore da una valle all'altra
            conquista anche i clienti più esigenti""",
        ),
    ),
    SiteWords(
        ("Pagina iniziale", "Notizie", "Opinioni", "Sport", "Negozio", "Chi siamo", "Accedi"),
        "Usiamo i cookie per misurare le visite. Accetta tutti oppure scegli.",
        "Pubblicità: ordina oggi a metà prezzo",
        "Leggi anche",
        "Commenti",
        "Condividi questa pagina",
        "Tutti i diritti riservati. Note legali.",
    ),
)
