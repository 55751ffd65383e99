"""English phrases: fourteen topics, frames and site words."""

from .language import Language, SiteWords, phrases, topic

FRAMES = phrases(
    """
    {S} {p} {a}.
    {S} {p}.
    {o} {s} {p}.
    {o} {s} {p} {a}.
    {S} {p}, while {t} {q}.
    {S} {p}, and {t} {q} {a}.
    {o} {s} {p}, but only when {t} {q}.
    Because {s} {p}, {t} {q} {a}.
    If {s} {p}, then {t} usually {q}.
    “{S} {p},” said {name}, who has followed the subject since {year}.
    According to {name}, {s} {p} in roughly {n} of every hundred cases.
    Between {year} and today, {n} separate reports noted that {s} {p}.
    """
)

OPENERS = phrases(
    """
    In practice,
    For most people,
    Surprisingly,
    As a rule,
    On closer inspection,
    Nobody doubts that
    Experience shows that
    It is often said that
    Contrary to expectation,
    Several studies suggest that
    Over the years,
    To put it simply,
    By the end of the season,
    """
)

ADJUNCTS = phrases(
    """
    in most parts of the country
    without any additional cost
    after only a few weeks
    during the winter months
    under ordinary conditions
    whenever the budget allows it
    far more often than before
    since the spring of {year}
    in about {n} percent of the cases
    for reasons that are still debated
    even in small towns
    at least once a year
    as the figures from {year} make clear
    """
)

TOPICS = (
    topic(
        "Astronomy",
        """the orbiting telescope
        a distant quasar
        the red supergiant
        the lunar observatory
        a passing comet
        the spectrograph
        our own galaxy
        the planetary survey""",
        """reveals faint galaxies behind curtains of dust
        emits radiation across the whole spectrum
        changes its brightness within days
        bends the light of older stars
        confirms the predicted orbit of the exoplanet
        shows traces of water vapour and methane
        collects photons for eleven hours a night
        challenges the accepted age of the universe""",
    ),
    topic(
        "Gardening",
        """a raised vegetable bed
        the compost heap
        the old apple tree
        a hedge of hawthorn
        the tomato seedling
        a sheltered greenhouse
        the clay soil
        a patch of wildflowers""",
        """needs watering early in the morning
        attracts bees and hoverflies
        recovers from hard pruning
        improves drainage around the roots
        keeps slugs away from the lettuce
        holds moisture through a dry July
        produces fruit well into October
        returns nitrogen to the ground""",
    ),
    topic(
        "Databases",
        """the query planner
        a partial index
        the write-ahead log
        a long transaction
        the replication slot
        a covering index
        the connection pool
        an append-only table""",
        """avoids a sequential scan of the table
        blocks the vacuum process for hours
        keeps the replica consistent with its primary
        reduces lock contention between writers
        estimates the number of rows too low
        survives a crash without losing a commit
        returns sorted rows straight from the disk page
        exhausts memory under concurrent load""",
    ),
    topic(
        "Background jobs",
        """the message broker
        an idle worker
        a poisoned job
        the retry policy
        the scheduler
        a full queue
        the dead-letter list
        an idempotent handler""",
        """delays every task behind it
        acknowledges the job after the result is stored
        restarts within a few seconds of a crash
        applies exponential backoff with jitter
        measures latency from enqueue to completion
        hides a slow downstream service
        processes the same payload twice without harm
        drops the lease once the heartbeat stops""",
    ),
    topic(
        "Cooking",
        """the sourdough starter
        a cast-iron pan
        the lemon marinade
        a slow braise
        the tomato sauce
        fresh basil
        the pastry dough
        a pinch of saffron""",
        """gives the crust a deeper colour
        softens tough cuts of beef
        balances the sweetness of roasted carrots
        needs an hour of rest in the refrigerator
        brings out the flavour of the garlic
        thickens over a gentle flame
        tastes better on the second day
        replaces butter in the classic recipe""",
    ),
    topic(
        "Cycling",
        """the steel touring frame
        a worn chain
        the disc brake
        a wide gravel tyre
        the morning commuter
        the mountain pass
        a well-fitted saddle
        the protected bike lane""",
        """absorbs vibration on rough roads
        wears down the cassette within a season
        climbs nine hundred metres in a single stretch
        stops reliably in heavy rain
        makes longer journeys comfortable
        cuts the number of collisions at junctions
        carries luggage for a fortnight of camping
        rolls quickly at lower pressure""",
    ),
    topic(
        "Medicine",
        """the vaccination programme
        a randomised trial
        the family doctor
        the new antibiotic
        a balanced diet
        the intensive care unit
        regular exercise
        the screening test""",
        """lowers the risk of heart disease
        detects tumours at an early stage
        protects infants against measles
        shortens the stay in hospital by two days
        shows no benefit over the placebo
        relieves chronic pain in elderly patients
        reduces blood pressure and cholesterol
        fails against resistant bacteria""",
    ),
    topic(
        "Economics",
        """the central bank
        a rising interest rate
        the housing market
        consumer spending
        the trade deficit
        a minimum wage
        the bond yield
        household debt""",
        """slows down investment by small firms
        pushes inflation above the target
        weakens the currency against the dollar
        raises the price of imported goods
        reacts to every hint from the treasury
        outpaces the growth of salaries
        signals a recession within twelve months
        protects savings from sudden losses""",
    ),
    topic(
        "Architecture",
        """the concrete facade
        a timber frame
        the railway terminal
        the courtyard house
        a green roof
        the vaulted ceiling
        the restored warehouse
        a narrow staircase""",
        """lets daylight reach the basement
        insulates the upper floors against heat
        combines Roman arches with modern steel
        survives earthquakes better than brick
        turns a derelict block into public space
        frames the view over the harbour
        stores rainwater for the fountains
        reflects the ideas of its first architect""",
    ),
    topic(
        "Music",
        """the string quartet
        an electric guitar
        the second movement
        a young composer
        the choir of the cathedral
        the drum machine
        an unusual chord progression
        the concert hall""",
        """returns to the opening melody in a minor key
        fills the room with a warm resonance
        borrows rhythms from Cuban dance bands
        demands great precision from the violins
        divides critics and delights audiences
        echoes the folk songs of the valley
        builds tension before the chorus
        records every album on analogue tape""",
    ),
    topic(
        "Wildlife",
        """the grey wolf
        a colony of puffins
        the mangrove forest
        an invasive beetle
        the migrating salmon
        a solitary leopard
        the coral reef
        the barn owl""",
        """returns to rivers it had abandoned
        hunts mostly after dusk
        shelters young fish from predators
        nests on cliffs above the ocean
        threatens native species of oak
        suffers from warmer and more acid seawater
        travels hundreds of kilometres in search of prey
        regulates the population of voles""",
    ),
    topic(
        "Chess",
        """the queen's gambit
        a passed pawn
        the world champion
        an endgame tablebase
        the kingside attack
        a quiet bishop move
        the chess engine
        the exposed king""",
        """controls the centre of the board
        sacrifices a rook for a lasting initiative
        refutes an opening played for a century
        decides the game in time trouble
        offers excellent drawing chances
        calculates twenty moves ahead
        promotes to a second queen
        forces the opponent into zugzwang""",
    ),
    topic(
        "Climate",
        """the melting glacier
        an offshore wind farm
        the carbon tax
        a heat wave
        the ocean current
        a solar panel
        the peat bog
        the power grid""",
        """stores more carbon than the surrounding forest
        raises the sea level by several millimetres
        supplies electricity to sixty thousand homes
        makes fossil fuel less profitable
        shifts the rainy season by a month
        dries out reservoirs across the region
        pays for itself within eight years
        balances supply and demand every second""",
    ),
    topic(
        "History",
        """the medieval guild
        a forgotten manuscript
        the trade route
        the emperor's decree
        a coastal fortress
        the printing press
        the archaeological dig
        the peace treaty""",
        """describes the harvest of a plague year
        connects the Baltic with the Mediterranean
        spreads new ideas faster than any preacher
        protects merchants from pirates and tolls
        ends three decades of war
        uncovers pottery from the Bronze Age
        regulates the price of bread and cloth
        changes the borders of four kingdoms""",
    ),
)

ENGLISH = Language(
    "en",
    FRAMES,
    OPENERS,
    ADJUNCTS,
    TOPICS,
    SiteWords(
        (
            "Home",
            "News",
            "Opinion",
            "Sport",
            "Shop",
            "Newsletter",
            "Archive",
            "About us",
            "Contact",
            "Log in",
        ),
        "We and our partners use cookies to measure visits. Accept all or manage your choices.",
        "Advertisement: save fifty percent on your first order today",
        "You may also like",
        "Comments",
        "Share this page",
        "All rights reserved. Terms of use, privacy policy, imprint.",
    ),
)
