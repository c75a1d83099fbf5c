"""The words that the training data is made of."""

from __future__ import annotations

NOUNS = """
account album alarm anchor angle animal answer apple apron archive arrow article asset atlas author badge bag
ball banana band banner barrel basket battery beach bean bear bed bell belt bench bike bill bird blanket blog
board boat body bolt book border bottle box bracelet branch bread brick bridge broom brush bucket budget
building bus button cabin cable cake camera camp candle canvas car card cargo carpet cart case castle cat
catalog cell chain chair channel chapter chart cheese chest chip circle class client clock cloth cloud coat
code coffee coin color comet comment company compass concert contact contract cookie copper corner cotton
couch country coupon course cousin cover crate credit crowd crown cup curtain customer cycle dance data deal
deck degree delivery desk device diamond diary dish doctor document dog dollar door dragon drawer dress drill
driver drum duck dust eagle ear editor egg elbow email engine entry envelope error event exam expense eye
fabric face factory falcon family fan farm feather fence festival field file film filter finger fish flag
flame flight floor flower folder forest fork form fossil fountain frame freight friend fruit fuel galaxy game
garage garden gate gear ghost gift giraffe glacier glass glove goal goat grade grain grant graph grape group
guard guest guide guitar hall hammer hand harbor hat hazard heart helmet herb hill hinge hobby holiday honey
horn horse hospital hotel house idea image index insect invoice iron island item jacket jar jewel job journal
journey judge juice jungle kettle key kitchen kite knee knife knot label ladder lake lamp language laptop
laundry lawn lawyer leaf league lemon lens lesson letter level library license light lime line lion list
lizard loan lock log lunch machine magnet mail mango manual map marble market mask match meal medal meeting
melody member menu message metal meter mirror mission model monitor month moon motor mountain mouse movie
museum music nail napkin needle nest network newspaper night node note notebook novel number nurse oak oar
object ocean offer office oil olive onion orange orbit order organ outlet oven owl owner package page paint
palace pan panel paper parade parcel park parrot partner party password path patient pattern payment peach
pear pearl pebble pen pencil penguin pepper permit person phone photo piano picture pie pigeon pillow pilot
pin pipe pizza planet plant plate platform player playlist plug pocket poem point policy pond pool portal
post poster pot potato potion prize process product profile project proof puzzle pump pupil queue quilt quiz
rabbit racket radar radio railway rain ranch raven receipt recipe record refund region reminder rent repair
reply report request reservation resource restaurant review reward ribbon rice ring river road robot rocket
role roof room root rope rose route row rug ruler sail salad salt sample sand saucer scale scarf scene
schedule school science score screen screw script sea seat secret sensor server session shadow sheep shelf
ship shirt shoe shop shovel signal silver singer skirt sky sled snack snow soap sock sofa song soup spark
spider spoon spring square stadium staff stage stamp star station statue stone storm story stove street
string student subscription sugar suit summer sun survey sword symbol table tablet tail target task tax taxi
tea teacher team temple tenant tent test theater thread ticket tiger tile timer tire title toast token tomato
tool tooth torch tour tower town toy track trail train transfer tree trip trophy truck trumpet tunnel turtle
umbrella uncle unit user vacation valley vault vehicle vendor video village vine violin visa voice volcano
voucher wagon wall wallet warehouse watch water wave weapon week whale wheel whistle window wine wing winter
wire witness wolf wood wool word worker world worm yacht yard zebra zone
""".split()

ADJECTIVES = """
active amber ancient angry bitter black blue bold brave bright broken brown busy calm careful cheap clean
clear clever cold cool crazy curly dark deep digital dirty dry dusty early easy electric empty fair famous
fancy fast fat final fine first flat fresh friendly full funny gentle giant glad golden good grand gray great
green happy hard heavy hidden high hollow hot huge humble hungry icy idle jolly kind large last late lazy
light little local lonely long loud lovely low lucky mad magic main mild misty modern monthly narrow neat new
nice noble noisy odd old open orange pale patient pink plain polite poor pretty private proud public purple
quick quiet rapid rare raw real red remote rich ripe rough round royal rusty sad safe salty shallow sharp
shiny short shy silent silver simple slow small smart smooth soft sour spare special spicy steep strange
strong sunny sweet swift tall tame tidy tiny tired tough true ugly urban vast violet warm weak weekly wet
white whole wide wild wise wooden yellow young
""".split()

NAMES = """
Aaron Ada Adam Agnes Ahmed Aisha Alan Alba Alex Alice Amara Amir Amy Ana Andre Angela Anna Anton Aria Arthur
Asha Astrid Ava Beatrice Ben Bianca Boris Bruno Carla Carlos Carmen Chen Chloe Clara Cora Daisuke Dana Daniel
Daria David Diana Diego Dina Elena Eli Elif Ella Emil Emma Enzo Eric Esther Eva Fatima Felix Fiona Frank
Frida Gabriel George Gina Grace Greta Gustav Hana Hannah Harold Hassan Hector Helen Henry Hugo Ian Ibrahim
Ida Igor Ines Ingrid Iris Isaac Isabel Ivan Jack Jana Jasmine Jean Jin Joan John Jonas Jorge Julia June Kai
Karen Karim Karl Kate Kenji Khalid Kim Lara Lars Laura Lea Leo Lena Liam Lily Linda Lisa Lucas Lucia Luis
Luna Maya Marco Maria Marie Mark Marta Martin Mary Mateo Max Mei Mia Michael Mila Mina Mohamed Mona Nadia
Naomi Nina Noah Nora Olga Oliver Olivia Omar Oscar Otto Pablo Paul Paula Pedro Peter Petra Pia Priya Rachel
Rafael Raj Rania Ravi Rita Robert Rosa Ruth Sam Samir Sandra Sara Sergei Sofia Stefan Stella Susan Sven Tara
Tariq Theo Thomas Tina Tom Uma Ursula Vera Victor Viola Walter Wanda Wei William Yara Yuki Yusuf Zara Zoe
""".split()

SURNAMES = """
Adams Ali Alvarez Baker Becker Bell Berg Bianchi Brown Carter Chen Clark Cohen Cruz Davis Diaz Dubois Evans
Fischer Flores Fox Garcia Gomez Gray Green Gupta Haas Hall Hansen Harris Hill Ito Jackson Jensen Johnson Jones
Kaya Kelly Khan Kim King Klein Kowalski Kumar Lang Larsen Lee Lewis Li Lopez Martin Meyer Miller Moore Mori
Nakamura Nguyen Novak Okafor Olsen Park Patel Perez Petrov Popov Reed Rivera Roberts Rossi Ruiz Sato Schmidt
Silva Singh Smith Stone Suzuki Tanaka Taylor Thomas Torres Turner Wagner Walker Wang Weber White Wilson Wood
Wright Young Zhang
""".split()

CITIES = (
    """
Accra|Amsterdam|Ankara|Athens|Atlanta|Austin|Baku|Bangkok|Barcelona|Beijing|Belgrade|Bergen|Berlin|Bern|Bogota
Boston|Bremen|Brussels|Budapest|Buenos Aires|Cairo|Cape Town|Casablanca|Chicago|Cologne|Copenhagen|Dakar|Dallas
Delhi|Denver|Dhaka|Doha|Dresden|Dubai|Dublin|Durban|Edinburgh|Florence|Geneva|Genoa|Ghent|Glasgow|Graz|Hamburg
Hanoi|Havana|Helsinki|Hong Kong|Houston|Istanbul|Jakarta|Jerusalem|Kabul|Kampala|Karachi|Kathmandu|Kigali|Krakow
Kyiv|Kyoto|Lagos|Leipzig|Lima|Lisbon|Liverpool|Ljubljana|London|Los Angeles|Lyon|Madrid|Malaga|Manchester|Manila
Marseille|Melbourne|Mexico City|Miami|Milan|Minsk|Montreal|Moscow|Mumbai|Munich|Nairobi|Naples|New York|Nice|Odesa
Osaka|Oslo|Ottawa|Oxford|Palermo|Paris|Perth|Porto|Prague|Quito|Reykjavik|Riga|Rio de Janeiro|Rome|Rotterdam
San Francisco|Santiago|Sao Paulo|Sarajevo|Seattle|Seoul|Seville|Shanghai|Singapore|Sofia|Stockholm|Sydney|Tallinn
Tbilisi|Tokyo|Toronto|Tunis|Turin|Utrecht|Valencia|Vancouver|Venice|Vienna|Vilnius|Warsaw|Wellington|York|Zagreb
Zurich
""".strip()
    .replace("\n", "|")
    .split("|")
)

# Names of everyday tools and fields, which training says too: never counted as unseen.
FAMILIAR = frozenset("author cat code delivery file label list mail order page reminder".split())

CAPITALS = {
    "Argentina": "Buenos Aires", "Australia": "Canberra", "Austria": "Vienna", "Belgium": "Brussels",
    "Brazil": "Brasilia", "Bulgaria": "Sofia", "Canada": "Ottawa", "Chile": "Santiago",
    "China": "Beijing", "Colombia": "Bogota", "Croatia": "Zagreb", "Cuba": "Havana",
    "Denmark": "Copenhagen", "Egypt": "Cairo", "England": "London", "Estonia": "Tallinn",
    "Finland": "Helsinki", "France": "Paris", "Germany": "Berlin", "Greece": "Athens",
    "Hungary": "Budapest", "Iceland": "Reykjavik", "India": "New Delhi", "Indonesia": "Jakarta",
    "Ireland": "Dublin", "Italy": "Rome", "Japan": "Tokyo", "Kenya": "Nairobi",
    "Latvia": "Riga", "Mexico": "Mexico City", "Nepal": "Kathmandu", "Norway": "Oslo",
    "Peru": "Lima", "Poland": "Warsaw", "Portugal": "Lisbon", "Romania": "Bucharest",
    "Russia": "Moscow", "Scotland": "Edinburgh", "Senegal": "Dakar", "South Korea": "Seoul",
    "Spain": "Madrid", "Sweden": "Stockholm", "Switzerland": "Bern", "Thailand": "Bangkok",
    "Turkey": "Ankara", "Ukraine": "Kyiv", "Vietnam": "Hanoi", "the United States": "Washington",
}  # fmt: skip

OPPOSITES = {
    "hot": "cold", "big": "small", "tall": "short", "fast": "slow", "up": "down", "left": "right",
    "open": "closed", "day": "night", "happy": "sad", "light": "dark", "wet": "dry", "new": "old",
    "early": "late", "full": "empty", "hard": "soft", "loud": "quiet", "rich": "poor", "good": "bad",
    "true": "false", "high": "low", "strong": "weak", "thick": "thin", "wide": "narrow",
    "near": "far", "first": "last", "begin": "end", "win": "lose", "buy": "sell", "clean": "dirty",
    "cheap": "expensive", "always": "never", "inside": "outside", "black": "white", 
    "easy": "difficult", "safe": "dangerous", "push": "pull", "sweet": "bitter",
}  # fmt: skip

CATEGORIES = {
    "colors": "red blue green yellow orange purple pink brown black white gray violet".split(),
    "animals": "dog cat horse cow lion tiger bear wolf fox rabbit mouse elephant goat sheep".split(),
    "fruits": "apple banana orange pear grape lemon cherry peach plum mango melon kiwi".split(),
    "vegetables": "carrot potato onion tomato pea bean cabbage pepper spinach leek".split(),
    "birds": "eagle owl raven duck swan parrot robin sparrow falcon penguin".split(),
    "rivers": "Nile Amazon Danube Rhine Thames Volga Ganges Mississippi Seine Elbe".split(),
    "countries": "France Japan Brazil Kenya Canada India Norway Peru Spain Egypt".split(),
    "cities": "Paris Tokyo London Rome Cairo Berlin Madrid Lima Oslo Vienna".split(),
    "planets": "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split(),
    "instruments": "piano guitar violin flute drum trumpet cello harp".split(),
    "sports": "football tennis swimming running cycling basketball hockey golf".split(),
    "drinks": "water tea coffee milk juice lemonade".split(),
    "metals": "iron gold silver copper tin lead zinc".split(),
    "tools": "hammer saw drill wrench screwdriver pliers".split(),
    "trees": "oak pine birch maple beech willow fir elm".split(),
    "shapes": "circle square triangle rectangle hexagon oval".split(),
    "programming languages": "Python Rust Java Ruby Haskell Lua Kotlin Swift".split(),
    "days": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "months": "January February March April May June July August September October".split(),
    "seasons": "spring summer autumn winter".split(),
}
COUNTS = "zero one two three four five six seven eight nine ten".split()

LANGUAGES = "French German Spanish Italian Japanese Chinese Arabic Dutch Swedish Turkish".split()

# What a tool does, and how people ask for it.
VERBS = {
    "get": "get|fetch|show me|give me|tell me|look up|retrieve|what is".split("|"),
    "find": "find|search for|look for|locate".split("|"),
    "create": "create|make|add|set up".split("|"),
    "delete": "delete|remove|erase|get rid of".split("|"),
    "update": "update|change|modify|edit".split("|"),
    "send": "send|dispatch|submit".split("|"),
    "book": "book|reserve".split("|"),
    "cancel": "cancel|call off".split("|"),
    "start": "start|launch|begin|run".split("|"),
    "stop": "stop|halt|end".split("|"),
    "count": "count|count up|tally".split("|"),
    "list": "list|show all|show".split("|"),
    "open": "open|unlock".split("|"),
    "close": "close|shut".split("|"),
    "order": "order|buy|purchase".split("|"),
    "measure": "measure|gauge".split("|"),
    "compute": "compute|calculate|work out".split("|"),
    "convert": "convert|transform".split("|"),
    "schedule": "schedule|plan|arrange".split("|"),
    "play": "play|put on".split("|"),
    "check": "check|inspect|verify".split("|"),
    "rename": "rename|give a new name to".split("|"),
    "share": "share|pass on".split("|"),
    "print": "print|print out".split("|"),
    "move": "move|shift|relocate".split("|"),
    "paint": "paint|color".split("|"),
    "clean": "clean|tidy".split("|"),
    "rate": "rate|score".split("|"),
    "lock": "lock|secure".split("|"),
    "translate": "translate".split("|"),
}

SYLLABLE_STARTS = "b c d f g h j k l m n p r s t v w z br ch cl cr dr fl fr gl gr kl kr pl pr sh sk sl sn sp st th tr tw".split()
SYLLABLE_MIDDLES = "a e i o u a e i o u ai au ea ee ia io oa oo ou".split()
SYLLABLE_ENDS = [
    "",
    "",
    "",
    "",
    *"b d f g k l m n p r s t x z ck ft ld ll lt mp nd ng nk nt rd rk rn rt sh sk st th".split(),
]
