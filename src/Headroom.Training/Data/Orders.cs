using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats;

namespace Headroom.Training.Data;

/// <summary>
/// Small data sets in each form of rows, written for this project: messages to a shop, with the order in them as JSON.
/// An answer is right or wrong to the letter, so that what was learned can be counted. Seeded; the splits share no
/// sentence, and half of the goods and names of the test rows are in no other.
/// </summary>
internal static class Orders
{
    /// <summary>Rows of the training, validation and test part.</summary>
    public const int TrainRows = 400, ValidationRows = 60, TestRows = 120;

    private const string Task =
        "Write the order as JSON with the keys item, colour, quantity, name, city and day, and nothing else.";

    /// <summary>Forms by the names that commands take.</summary>
    public static readonly IReadOnlyDictionary<string, Func<Order, PhiloxRandom, JsonObject>> Forms =
        new Dictionary<string, Func<Order, PhiloxRandom, JsonObject>>(StringComparer.Ordinal)
        {
            ["conversations"] = (o, _) => new()
            {
                ["messages"] = new JsonArray(
                    Message("system", Task), Message("user", o.Text), Message("assistant", o.Json)),
            },
            ["instructions"] = (o, _) => new() { ["instruction"] = Task, ["input"] = o.Text, ["output"] = o.Json },
            ["completions"] = (o, _) => new() { ["prompt"] = o.Text + "\nJSON:", ["completion"] = " " + o.Json },
            ["texts"] = (o, _) => new() { ["text"] = $"{o.Text} {o.Reply}" },
            ["preferences"] = (o, random) => new()
            {
                ["prompt"] = new JsonArray(Message("system", Task), Message("user", o.Text)),
                ["chosen"] = new JsonArray(Message("assistant", o.Json)),
                ["rejected"] = new JsonArray(Message("assistant", Chatter(o, random))),
            },
            ["styles"] = (o, _) => new()
            {
                ["prompt"] = new JsonArray(Message("system", Task), Message("user", o.Text)),
                ["chosen"] = new JsonArray(Message("assistant", o.Lines)),
                ["rejected"] = new JsonArray(Message("assistant", o.Json)),
            },
            ["classes"] = (o, random) => Class(o, random),
        };

    private static readonly string[] Goods = List(
        "mug, lamp, scarf, chair, notebook, kettle, blanket, teapot, vase, basket, stool, apron, bowl, tray, clock, "
            + "pillow, candle, jug, rug, mirror, bench, towel, plate, ladle");
    private static readonly string[] Colours = List("red, blue, green, black, white, yellow, grey, brown");
    private static readonly string[] First = List(
        "Ada, Bruno, Clara, Dario, Elin, Farid, Greta, Hugo, Ines, Jonas, Kaya, Leon, Mira, Nils, Olga, Pavel, Runa, "
            + "Samir, Tilda, Ugo, Vera, Wanda, Yara, Zeno");
    private static readonly string[] Last = List(
        "Lind, Moreau, Okoye, Brandt, Silva, Novak, Haddad, Berg, Costa, Ito, Marsh, Petit, Rossi, Sand, Toth, Ueda, "
            + "Vogel, West, Abel, Falk, Grau, Holm, Kern, Lund");
    private static readonly string[] Cities = List(
        "Oslo, Lyon, Graz, Porto, Riga, Turin, Ghent, Malmo, Basel, Cork, Bergen, Lille, Split, Varna, Leeds, Brno");
    private static readonly string[] Days = List("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday");

    // {q} {c} {i} quantity, colour and item; {n} name, {t} town, {d} day. The plural takes an s.
    private static readonly string[][] Sentences =
    [
        [
            "Please send {q} {c} {i} to {n} in {t} by {d}.", "{n} from {t} would like {q} {c} {i} on {d}.",
            "Could you deliver {q} {i} in {c} to {n}, {t}, this {d}?",
            "Order for {n}: {q} {c} {i}, to be in {t} on {d}.",
            "I need {q} {c} {i} by {d}. My name is {n}, I live in {t}.",
            "For {d}, {q} {i} ({c}) to {t}, care of {n}.",
        ],
        [
            "Hello, {q} {c} {i} for {n} please, address in {t}, {d} would be fine.",
            "We are waiting in {t} for {q} {c} {i}; {n} will be at home on {d}.",
        ],
        [
            "Hi! {n} here. Put me down for {q} {c} {i}, and bring them to {t} on {d}.",
            "On {d} {n} moves to {t} and wants {q} {i} there, all of them {c}.",
            "Kindly ship to {t}: {q} {c} {i}, attention {n}, arriving {d}.",
        ],
    ];

    private static readonly (string Label, string[] Texts)[] Others =
    [
        ("complaint", [
            "The {c} {i} that came to {t} on {d} is broken, says {n}.", "{n} in {t} still waits for {q} {i} since {d}.",
            "I got {c} {i} and not what I asked for. {n}, {t}",
        ]),
        ("question", [
            "Do you have the {i} in {c} too? {n}, {t}", "Are you open in {t} on {d}? {n} asks.",
            "How long do {q} {i} take to {t}? {n}",
        ]),
        ("thanks", [
            "{n} from {t} says thank you for the {c} {i}.",
            "The {i} came on {d} and look lovely in {c}. Best, {n}, {t}",
            "So happy with my {q} {c} {i}! {n} in {t}",
        ]),
    ];

    /// <summary>One order.</summary>
    internal sealed record Order(
        string Item, string Colour, int Quantity, string Name, string City, string Day, string Sentence)
    {
        /// <summary>The message.</summary>
        public string Text => Fill(Sentence);

        /// <summary>What is right.</summary>
        public string Json => new JsonObject
        {
            ["item"] = Item,
            ["colour"] = Colour,
            ["quantity"] = Quantity,
            ["name"] = Name,
            ["city"] = City,
            ["day"] = Day,
        }.ToJsonString();

        /// <summary>The same, a key a line: what the preferences of the form styles want.</summary>
        public string Lines => Json.Replace(",\"", ",\n  \"", StringComparison.Ordinal)
            .Replace("{", "{\n  ", StringComparison.Ordinal).Replace("}", "\n}", StringComparison.Ordinal);

        /// <summary>What the shop answers in words.</summary>
        public string Reply => Fill("Thank you, {n}. We bring {q} {c} {i} to {t} on {d}.");

        private string Plural => Item + (Item[^1] is 's' or 'h' ? "es" : "s");

        /// <summary>A sentence with the order's words.</summary>
        public string Fill(string sentence) => sentence
            .Replace("{q}", Quantity.ToString(CultureInfo.InvariantCulture), StringComparison.Ordinal)
            .Replace("{c}", Colour, StringComparison.Ordinal)
            .Replace("{i}", Quantity == 1 ? Item : Plural, StringComparison.Ordinal)
            .Replace("{n}", Name, StringComparison.Ordinal)
            .Replace("{t}", City, StringComparison.Ordinal)
            .Replace("{d}", Day, StringComparison.Ordinal);
    }

    /// <summary>
    /// Writes train.jsonl, validation.jsonl and test.jsonl into a new or empty folder; all of them, or none.
    /// </summary>
    /// <param name="form">One of <see cref="Forms"/>.</param>
    /// <param name="folder">The folder.</param>
    /// <param name="seed">Seed of the rows.</param>
    /// <param name="overwrite">Whether a folder that holds such files and nothing else may be replaced.</param>
    /// <exception cref="HeadroomException">Something is there, or it cannot be written.</exception>
    public static void Write(string form, string folder, int seed, bool overwrite)
    {
        (string Name, int Rows)[] parts =
            [("train", TrainRows), ("validation", ValidationRows), ("test", TestRows)];
        using var target = OutputTarget.OfFolder(
            folder, overwrite, "Give another folder.", name => parts.Any(p => name == p.Name + ".jsonl"));
        OutputFolder.Create(target.Temporary, "Give another folder.");
        for (int p = 0; p < parts.Length; p++)
            AtomicFile.WriteText(
                Path.Combine(target.Temporary, parts[p].Name + ".jsonl"),
                string.Concat(Rows(form, p, parts[p].Rows, seed).Select(r => r.ToJsonString(Plain) + "\n")));
        target.Commit();
    }

    /// <summary>Rows of a part: 0 training, 1 validation, 2 test.</summary>
    public static IEnumerable<JsonObject> Rows(string form, int part, int count, int seed)
    {
        var random = new PhiloxRandom((ulong)(uint)seed, 0x36000000 + (uint)part);
        var seen = new HashSet<string>(StringComparer.Ordinal);
        while (seen.Count < count)
        {
            var order = Draw(random, part);
            if (seen.Add(order.Text)) yield return Forms[form](order, random);
        }
    }

    // Of goods and names the last third is in the test rows alone, which take half of theirs from it.
    private static Order Draw(PhiloxRandom random, int part)
    {
        string Pick(string[] from)
        {
            int own = from.Length * 2 / 3;
            return part == 2 && random.Next(2) == 0
                ? from[own + random.Next(from.Length - own)] : from[random.Next(own)];
        }
        return new(
            Pick(Goods), Colours[random.Next(Colours.Length)], 1 + random.Next(12), $"{Pick(First)} {Pick(Last)}",
            Pick(Cities), Days[random.Next(Days.Length)], Sentences[part][random.Next(Sentences[part].Length)]);
    }

    private static JsonObject Class(Order order, PhiloxRandom random)
    {
        int kind = random.Next(Others.Length + 1);
        if (kind == Others.Length) return new() { ["text"] = order.Text, ["label"] = "order" };
        var (label, texts) = Others[kind];
        return new() { ["text"] = order.Fill(texts[random.Next(texts.Length)]), ["label"] = label };
    }

    // What is not asked for: talk around the JSON, keys that are missing, or no JSON at all.
    private static string Chatter(Order order, PhiloxRandom random) => random.Next(3) switch
    {
        0 => $"Sure! Here is the order:\n{order.Json}\nLet me know if I can help with anything else.",
        1 => $"{{\"item\":\"{order.Item}\",\"quantity\":{order.Quantity}}}",
        _ => order.Reply,
    };

    private static readonly JsonSerializerOptions Plain = new()
    {
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    private static JsonObject Message(string role, string content) => new() { ["role"] = role, ["content"] = content };

    private static string[] List(string words) => words.Split(", ");
}
