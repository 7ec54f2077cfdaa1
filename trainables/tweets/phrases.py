"""The phrases of the demo tweets. Each split uses its own phrases: no phrase of train occurs in another split."""

#: The words of each {slot}.
SLOTS = {
    "i": "i|we|my mom|my dad|my little brother|my roommate|my wife|my husband|grandma|my coworker|my sister|uncle joe|"
    "our neighbour|my girlfriend|my kid|my best friend|the new guy|auntie",
    "when": "since last night|again|for three days now|all week|since monday|this morning|right now|for hours|tonight|"
    "since the weekend|two days in a row|after lunch|before bed|every single night|out of nowhere|this month",
    "part": "knee|back|left arm|throat|stomach|chest|ankle|neck|shoulder|jaw|ear|eye|wrist|hip|foot|head",
    "thing": "this traffic|my boss|this exam|the new season|that song|this game|his playlist|the group chat|this queue|"
    "my landlord|that trailer|the wifi|this commute|the referee|our kitchen|my inbox|the score|monday",
    "place": "the gym|work|the mall|the airport|school|the game|the office|the beach|the bus|the studio|campus|town",
    "food": "tacos|ramen|pizza|coffee|leftovers|pancakes|sushi|a bagel|curry|ice cream|dumplings|salad",
}

#: Medical, in medical words.
CLINICAL = """
got diagnosed with type 2 diabetes {when}|the biopsy came back benign|starting chemo on tuesday
my asthma inhaler ran out|antibiotics finally cleared the ear infection|had an mri of my {part}
blood pressure was 160 over 100 {when}|the rash turned out to be shingles|pneumonia confirmed by x-ray
insulin prices doubled and {i} can't skip doses|the vaccine gave me a mild fever {when}
flu test positive, resting at home|on prednisone {when} for my {part}|{i} had surgery on the {part}
kidney stones are no joke, passed one {when}|migraine with aura {when}, took a triptan
strep throat going round the daycare|{i} had a seizure {when}|waiting for the cardiologist to call about the ecg
allergic reaction to penicillin, covered in hives|my iron is low so the doctor put me on supplements
metformin upsets my stomach {when}|physio says the torn ligament needs six weeks|the ultrasound showed a healthy baby
tested negative for covid but still coughing|the dentist pulled an abscessed tooth {when}
my thyroid levels are off again|concussion protocol for {i} {when}
anyone know if ibuprofen is safe with blood thinners|the er gave {i} an iv for dehydration
switching antidepressants, day 3 side effects are rough|mammogram reminder: book yours today|epipen saved {i} {when}
gallbladder comes out on friday|the oncologist says the tumour is shrinking|measles cases rising in our county
{i} needs a liver transplant|arthritis in my {part} is flaring {when}|anemia explains why {i} felt weak {when}
bronchitis {when}, using a nebulizer|a mole on my {part} had to be removed
cholesterol down 40 points since starting statins|the nurse changed the dressing on my {part}
lyme disease from a tick bite {when}|glucose at 240 before breakfast|appendix burst, emergency surgery {when}
psoriasis cream actually works on my {part}|{i} is in intensive care {when}
postpartum depression is real, talk to a doctor|food poisoning {when}, on electrolytes
sprained {part}, crutches for a month|hospital discharged {i} with painkillers|eczema on my {part} got infected
hay fever so bad {i} needs an inhaler
"""

#: Medical, in everyday words.
BODILY = """
can't keep anything down {when}|my {part} has been throbbing {when}|woke up and couldn't feel my {part}
{i} fainted at {place} {when}|can't stop shivering and my skin is burning|threw up {food} {when} and everything spins
they took the cast off my {part}|six stitches in my {part} after {place}
can hardly breathe walking up the stairs {when}|my {part} swelled up after {food}, can't swallow
they finally let {i} go home from the ward|coughing up something green|bleeding won't stop, holding my {part} up
{i} hasn't slept or eaten {when} and looks grey|my {part} popped and won't bend
peeing every ten minutes {when} and it stings|lost ten kilos without trying {when}
seeing double {when}, the room tilts|heart racing and skipping beats {when} while just sitting
{i} slurred words and one side of the face dropped|one nostril blocked, voice gone, {part} like sandpaper
tiny red spots all over my {part} {when}|{i} collapsed after {food}, lips turned blue
ringing in my ears {when} that won't go away|can't lift my {part} above my head|the cut on my {part} is oozing and hot
down on the bathroom floor {when}, nothing stays in|clump of hair fell out {when}
{i} keeps falling over {when}, legs just give up|legs swollen like balloons {when}|too weak to get out of bed {when}
woke up soaked in sweat {when}|nose gushing red {when}, tissues everywhere|my {part} went numb and tingly {when}
{i} can't remember what day it is {when}, it is getting worse|a lump on my {part} that was not there before
skin on my {part} peeling and itching {when}|the little one is burning up {when}, won't drink
vision went dark on one side|felt a sharp stab in my {part} {when} and dropped
contractions every five minutes, on our way|broke my {part} at {place} {when}|ate {food} and my tongue is swelling
has anyone had their {part} drained, does it hurt|off the ventilator at last, {i} smiled
twisted my {part} at {place}, it is purple|two weeks sober and the shakes are awful
can't hear out of my left ear {when}
"""

#: Not medical, in medical words.
FIGURATIVE = """
{thing} is giving me a heart attack|{thing} is such a headache|that goal was a shot of adrenaline
{thing} makes me sick|festival fever is real {when}|addicted to {food}, no cure
my wallet needs intensive care after {place}|allergic to mondays and to {thing}|that clip went viral {when}
the economy has caught a cold|{thing} is pure poison|broke a leg on stage {when}, standing ovation
retail therapy at {place} {when}|{food} is my only medicine|the defence has a serious case of butterfingers
{i} is dying of laughter at {thing}|{thing} is a pain in the neck|her dance moves are sick
that bass drop gave me chills|cabin fever {when}, let me out|{thing} is cancer for this club
{i} is a surgeon with that guitar|doctor strange was so good {when}|nurse jackie marathon {when}
my phone is on life support|{thing} needs a diagnosis and a priest|the patch notes cured {thing}
this playlist is therapy|a healthy dose of sarcasm {when}|my plants are in the icu {when}
injecting {food} straight into my veins|blind with rage at {thing}|{thing} gave me whiplash
the bride wore a sick dress|spring break withdrawal {when}|this bug in my code is chronic|the stock is bleeding {when}
{i} has world cup fever {when}|{place} was an emergency room for fashion|a vaccine against bad takes please
surgical passing from the midfield {when}|love is a drug and {i} overdosed|{thing} is contagious, everyone hums it
brain surgery is easier than {thing}|my bank account flatlined {when}|pulse racing, final lap at {place}
the group project is on its deathbed|{i} has a phd in overthinking, call me doctor|crippled by homework {when}
that plot twist broke my heart|acute lack of {food} {when}|prescription: {food} and a nap
{thing} is my daily dose of joy|allergic to responsibility {when}|the meme is infectious
suffering from {thing} withdrawal|i would kill for {food} {when}|my motivation is in a coma
spinal tap reunion at {place}|the car needs surgery {when}|{thing} is a bitter pill
the printer is having a seizure {when}|ocd about my desk {when} lol|{i} got roasted, send an ambulance
"""

#: Not medical, in everyday words.
DAILY = """
{food} at {place} with {i}|stuck at {place} {when}|forgot the keys at {place}|{thing} is already over
new shoes for {place}|{i} ate all the {food}|cleaning the kitchen {when}|phone died at {place}
can't wait for {place} {when}|{thing} is so good|burned the {food} {when}|parking at {place} is impossible
{i} finally passed the driving test|it will not stop raining|who is going to {place} {when}|the dog ate my homework
packing for the trip {when}|{i} won the raffle at {place}|watching {thing} with {i}
sold out in two minutes, unbelievable|the train is late {when}|painted the fence {when}
need a new phone, this one is slow|{i} moved to a new flat {when}|taxes done, treating myself to {food}
happy birthday to {i}|that sunset at {place} though|{thing} starts in five minutes|lost my umbrella at {place}
{i} got the job|learning to knit {when}|the bakery ran out of {food}|garage sale {when}, come by
our team won by one point|snow at last|the new album drops {when}|three meetings before noon
{i} snores louder than a truck|who moved my {food}|walked ten thousand steps to {place}|board games with {i} {when}
the cat sits on my keyboard {when}|{food} recipe anyone|booked the flights {when}|{i} can't park to save a life
early shift at {place} {when}|the power went out {when}|library closes at six|forgot my password {when}
second hand bike for sale|{i} is learning the drums, pray for us|got a parking ticket at {place}|{thing} made me cry
finally fixed the sink {when}|open mic at {place} {when}|my package is stuck in customs|haircut day
{i} voted {when}, go vote|two tickets left for {place}|moving boxes everywhere|the neighbours are loud {when}
best {food} in town|dinner for two, table at eight|road trip with {i} {when}|study group at {place} {when}
missed the last bus from {place}|rearranged the living room {when}|{i} adopted a kitten
"""
