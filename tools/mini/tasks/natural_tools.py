"""The tools that people try first: weather, time, mail, search and their like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tools.mini.example import Call, Tool
from tools.mini.source import Source

Make = Callable[[Source], Any]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: the names it may go by, its type, and values for it."""

    names: str
    kind: str
    make: Make
    required: bool = True


@dataclass(frozen=True, slots=True)
class NaturalTool:
    """A tool with its names, descriptions and the questions that call it; ``{0}`` in a question
    is the value of the first parameter, and so on."""

    names: str
    descriptions: str
    parameters: tuple[Parameter, ...]
    questions: str


def _city(names: str = "city|location|place|town|city_name", required: bool = True) -> Parameter:
    return Parameter(names, "string", Source.city, required)


def _enum(names: str, choices: str, required: bool = False) -> Parameter:
    return Parameter(
        names, f"enum:{choices}", lambda source: source.pick(choices.split(",")), required
    )


def _text(names: str, make: Make = Source.phrase, required: bool = True) -> Parameter:
    return Parameter(names, "string", make, required)


def _integer(names: str, low: int, high: int, required: bool = True) -> Parameter:
    return Parameter(names, "integer", lambda source: source.between(low, high), required)


def _number(names: str, required: bool = True) -> Parameter:
    return Parameter(names, "number", lambda s: s.pick((s.integer, s.decimal))(), required)


_CURRENCIES = "USD,EUR,GBP,JPY,CHF"

TOOLS = (
    NaturalTool(
        "get_weather|get_current_weather|weather|fetch_weather|getWeather|weather_lookup|current_weather",
        "Get the current weather|Get the current weather in a given location|Returns the weather of a city.|Weather of a place",
        (_city(), _enum("unit|units|temperature_unit", "celsius,fahrenheit")),
        "What is the weather in {0}?|What's the weather in {0}?|What's the weather like in {0}?|How is the weather in {0} today?|weather {0}|Is it raining in {0}?"
        "|What is the weather like in {0} in {1}?|Tell me the weather of {0}|How warm is it in {0}?|What's the temperature in {0} in {1}?|Do I need an umbrella in {0}?"
        "|Weather in {0}, please|How's the weather in {0}?|What is the weather like today in {0}?|Give me the weather for {0} in {1}",
    ),
    NaturalTool(
        "get_forecast|weather_forecast|forecast",
        "Get the weather forecast|Forecast for some days",
        (_city(), _integer("days|num_days|number_of_days", 1, 14)),
        "What will the weather be in {0} in the next {1} days?|Forecast for {0}, {1} days|Give me a {1} day forecast for {0}|How will the weather in {0} be for {1} days?",
    ),
    NaturalTool(
        "get_time|current_time|get_current_time|time_in|getTime",
        "Get the current time|The time in a city|Returns the local time of a place",
        (_city("city|location|timezone|place"),),
        "What time is it in {0}?|Tell me the time in {0}|What's the time in {0}?|time in {0}|How late is it in {0} now?|Current time in {0}",
    ),
    NaturalTool(
        "send_email|send_mail|email|sendEmail|mail",
        "Send an email|Sends a mail to someone.",
        (
            _text("to|recipient|address|email", Source.email),
            _text("subject"),
            _text("body|message|text|content"),
        ),
        'Send an email to {0} with the subject "{1}" and the body "{2}"|Mail {0}, subject: {1}, text: {2}|Write to {0} about "{1}": "{2}"',
    ),
    NaturalTool(
        "send_message|send_sms|message|text_user",
        "Send a message to a person|Sends a text message",
        (_text("to|recipient|person|user", Source.person), _text("text|message|body|content")),
        'Send {0} the message "{1}"|Tell {0}: {1}|Message {0}: "{1}"|Send a message to {0} that says "{1}"|Text {0} "{1}"',
    ),
    NaturalTool(
        "search|web_search|search_web|google|search_knowledge_base|find_documents",
        "Search the web|Search the knowledge base|Finds documents for a query.",
        (
            _text("query|q|search_query|keywords"),
            _integer("limit|max_results|top_k|num_results", 1, 20, False),
        ),
        'Search for {0}|Search the web for "{0}"|Find documents about {0}|Look up {0}|Search for {0}, {1} results|What does the web say about {0}?|Google {0}|Find {1} results for "{0}"',
    ),
    NaturalTool(
        "get_stock_price|stock_price|stock|quote",
        "Get the price of a stock|Current stock price by symbol",
        (
            _text(
                "symbol|ticker|stock",
                lambda s: "".join(s.rng.choices("ABCDEFGHIKLMNOPRSTUVXYZ", k=s.between(2, 4))),
            ),
        ),
        "What is the price of {0}?|Stock price of {0}|How much is {0}?|What does the {0} stock cost?|Give me a quote for {0}|What's the stock price of {0}?",
    ),
    NaturalTool(
        "add|add_numbers|sum|plus",
        "Add two numbers|Returns a + b",
        (_number("a|x|first|left"), _number("b|y|second|right")),
        "Add {0} and {1}|What is {0} + {1}?|{0} plus {1}|Sum {0} and {1}|Use the tool to add {0} and {1}",
    ),
    NaturalTool(
        "multiply|multiply_numbers|times|product",
        "Multiply two numbers|Returns a * b",
        (_number("a|x|first|left"), _number("b|y|second|right")),
        "Multiply {0} by {1}|What is {0} * {1}?|{0} times {1}|What's {0} x {1}?|Compute {0} times {1}",
    ),
    NaturalTool(
        "calculator|calculate|evaluate|calc",
        "Evaluate an arithmetic expression|A calculator",
        (
            _text(
                "expression|expr|formula",
                lambda s: f"{s.between(1, 999)} {s.pick('+-*/')} {s.between(1, 999)}",
            ),
        ),
        "What is {0}?|Calculate {0}|Compute {0}|{0}|How much is {0}?|Evaluate {0}",
    ),
    NaturalTool(
        "set_timer|timer|start_timer|setTimer",
        "Set a timer|Starts a timer",
        (_integer("minutes|duration|duration_minutes", 1, 90),),
        "Set a timer for {0} minutes|Timer {0} minutes|Wake me in {0} minutes|Start a {0} minute timer|Remind me in {0} minutes",
    ),
    NaturalTool(
        "create_reminder|add_reminder|reminder|remind",
        "Create a reminder|Reminds the user of something",
        (_text("text|title|message|what"), _text("time|when|date", Source.date)),
        "Remind me of {0} on {1}|Set a reminder for {1}: {0}|Create a reminder '{0}' for {1}|Remind me {1} about {0}",
    ),
    NaturalTool(
        "convert_currency|currency_converter|exchange",
        "Convert an amount to another currency|Exchange money",
        (
            _number("amount|value"),
            _enum("from|from_currency|source", _CURRENCIES, True),
            _enum("to|to_currency|target", _CURRENCIES, True),
        ),
        "Convert {0} {1} to {2}|How much is {0} {1} in {2}?|Change {0} {1} into {2}|{0} {1} in {2}",
    ),
    NaturalTool(
        "book_flight|search_flights|find_flights|flights",
        "Book a flight|Search flights between two cities",
        (
            _city("origin|from|from_city|departure"),
            _city("destination|to|to_city|arrival"),
            _text("date|day|departure_date", Source.date, False),
        ),
        "Book a flight from {0} to {1}|Find flights from {0} to {1} on {2}|I want to fly from {0} to {1} {2}|Flights {0} to {1}|Fly me from {0} to {1} on {2}",
    ),
    NaturalTool(
        "get_user|get_user_info|lookup_user|find_user|get_customer",
        "Get a user by id|Information about a user",
        (_integer("user_id|id|uid|customer_id", 1, 99999),),
        "Get user {0}|Who is user {0}?|Show me the user with id {0}|Look up customer {0}|What do we know about user {0}?",
    ),
    NaturalTool(
        "get_order|order_status|get_delivery_date|track_order",
        "Status of an order|Get the delivery date of an order",
        (_text("order_id|order|id|number", Source.code),),
        "Where is my order {0}?|What is the status of order {0}?|When will order {0} arrive?|Track order {0}|Delivery date of order {0}?",
    ),
    NaturalTool(
        "translate|translate_text|translator",
        "Translate a text|Translates text to another language",
        (
            _text("text|sentence|phrase"),
            _enum(
                "language|target_language|to|target", "French,German,Spanish,Italian,Japanese", True
            ),
        ),
        'Translate "{0}" to {1}|How do you say {0} in {1}?|What is "{0}" in {1}?|Translate {0} into {1}',
    ),
    NaturalTool(
        "play_music|play_song|play|music",
        "Play music|Plays a song",
        (_text("song|title|track|name"), _text("artist|by|singer", Source.person, False)),
        "Play {0}|Play {0} by {1}|I want to hear {0}|Put on {0} by {1}|Play {0}, please",
    ),
    NaturalTool(
        "set_light|turn_light|control_light|lights|switch_light",
        "Turn the light on or off|Controls the light of a room",
        (_text("room|location", Source.noun), _enum("state|status|action", "on,off", True)),
        "Turn {1} the light in the {0}|Light {1} in the {0}|Switch the {0} light {1}|Turn the {0} lights {1}",
    ),
    NaturalTool(
        "set_temperature|thermostat|set_thermostat|heat",
        "Set the temperature of a room|Controls the heating",
        (
            _integer("temperature|degrees|value|target", 10, 30),
            _text("room|location|zone", Source.noun, False),
        ),
        "Set the temperature to {0} degrees|Make it {0} degrees in the {1}|Heat the {1} to {0} degrees|Set the thermostat to {0}",
    ),
    NaturalTool(
        "get_horoscope|horoscope",
        "Get today's horoscope for an astrological sign.|Horoscope of a sign",
        (
            _enum(
                "sign|zodiac_sign",
                "Aries,Taurus,Gemini,Cancer,Leo,Virgo,Libra,Scorpio,Aquarius,Pisces",
                True,
            ),
        ),
        "What is my horoscope? I am an {0}|Horoscope for {0}|What's the horoscope for {0}?|I am a {0}. What is my horoscope?|Tell me the {0} horoscope",
    ),
    NaturalTool(
        "read_file|open_file|cat|get_file|load_file",
        "Read a file|Returns the content of a file",
        (_text("path|file|filename|file_path", Source.address),),
        "Read {0}|Show me the file {0}|What is in {0}?|Open {0}|Print the content of {0}|cat {0}",
    ),
    NaturalTool(
        "list_files|ls|list_directory",
        "List the files of a directory|Directory listing",
        (_text("path|directory|dir|folder", lambda s: f"/{s.word()}/{s.word()}"),),
        "List the files in {0}|What is in the folder {0}?|ls {0}|Show the directory {0}|Which files are in {0}?",
    ),
    NaturalTool(
        "get_date|today|current_date|now|get_current_datetime",
        "Get today's date|The current date and time",
        (),
        "What day is it?|What is today's date?|What's the date today?|Which day is today?|date?|Tell me the date",
    ),
    NaturalTool(
        "create_event|add_event|schedule_meeting|calendar",
        "Create a calendar event|Adds a meeting to the calendar",
        (
            _text("title|name|event|summary"),
            _text("date|day|when", Source.date),
            _text("time|start|start_time", Source.time, False),
        ),
        "Schedule {0} on {1} at {2}|Add {0} to my calendar on {1}|Create an event '{0}' on {1} at {2}|Put {0} into the calendar for {1}",
    ),
    NaturalTool(
        "find_restaurants|restaurant_search|restaurants|get_restaurants",
        "Find restaurants|Restaurants in a city",
        (
            _city(),
            _text(
                "cuisine|kind|food|type",
                lambda s: s.pick(("Italian", "Thai", "French", "Indian", "vegan", s.coined())),
                False,
            ),
        ),
        "Find a restaurant in {0}|Where can I eat in {0}?|{1} restaurants in {0}|Find {1} food in {0}|I want to eat {1} in {0}",
    ),
    NaturalTool(
        "get_population|population|city_info|get_city_info",
        "Get the population of a city|Information about a city",
        (_city(),),
        "How many people live in {0}?|What is the population of {0}?|Population of {0}|Tell me about {0}|How big is {0}?",
    ),
    NaturalTool(
        "roll_dice|roll|dice|random_number",
        "Roll a die|Returns a random number",
        (_integer("sides|faces|max", 2, 100),),
        "Roll a die with {0} sides|Roll a {0}-sided die|Throw a die with {0} faces|Random number up to {0}",
    ),
)


def natural_request(source: Source) -> tuple[Tool, str, Call]:
    """A tool, a question, and the call that answers it."""
    kind = source.pick(TOOLS)
    question = source.phrasing(kind.questions.split("|"))
    names = [source.pick(parameter.names.split("|")) for parameter in kind.parameters]
    if len(set(names)) < len(names):
        names = [parameter.names.split("|")[0] for parameter in kind.parameters]
    values = [parameter.make(source) for parameter in kind.parameters]
    arguments = {
        name: value
        for place, (name, value) in enumerate(zip(names, values, strict=True))
        if f"{{{place}}}" in question
    }
    tool = _described(kind, names, source)
    text = question.format(*values)
    return tool, text, Call(tool["function"]["name"], arguments)


def _described(kind: NaturalTool, names: list[str], source: Source) -> Tool:
    properties = {}
    for name, parameter in zip(names, kind.parameters, strict=True):
        base, _, choices = parameter.kind.partition(":")
        schema: dict[str, Any] = {"type": "string" if base == "enum" else base}
        if choices:
            schema["enum"] = choices.split(",")
        if source.chance(0.5):
            schema["description"] = source.pick(
                ("The {w}", "the {w}", "The {w}, e.g. {v}", "{w}", "Name of the {w}")
            ).format(w=name.replace("_", " "), v=parameter.make(source))
        properties[name] = schema
    required = [n for n, p in zip(names, kind.parameters, strict=True) if p.required]
    function: dict[str, Any] = {"name": source.pick(kind.names.split("|"))}
    if source.chance(0.85):
        function["description"] = source.pick(kind.descriptions.split("|"))
    function["parameters"] = {"type": "object", "properties": properties, "required": required}
    if source.chance(0.15):
        function["parameters"]["additionalProperties"] = False
    return {"type": "function", "function": function}
