using Headroom.Core;

namespace Headroom.Training.Data;

/// <summary>
/// The seeded corpus that the two tiny bases are pretrained on: short notes about concerts, soups, trips and films,
/// written for this project. Each note tells of something and then what followed from it, so a model that predicts the
/// end well has to tell praise from blame, concession from verdict and irony from both. It uses the words of every part
/// of the review set, and none of its sentences; the form of the duel's task ("Sentiment:" and one word) is
/// not in it, so that is left to fine-tuning.
/// </summary>
internal static class PretrainCorpus
{
    private static readonly string[] Things =
    [
        "concert", "soup", "hotel", "book", "trip", "play", "exhibition", "dinner", "lecture", "garden", "bakery",
        "ferry", "museum", "song", "poem", "match", "picnic", "market", "train ride", "novel", "puppet show",
        "circus", "breakfast", "walk", "choir", "painting", "podcast", "game", "class", "party"];

    private static readonly string[] Good =
    [
        "We stayed for more.", "I would go again tomorrow.", "We told all our friends.", "I smiled the whole way back.",
        "It was worth every coin.", "We clapped for a long time.", "I want to do it again.", "Five stars from me.",
        "So we bought tickets for the next one.", "The verdict was positive.", "That was good.",
        "I was glad that I came.", "We left happy.", "Everybody cheered at the end.", "I recommend it.",
        "It made my year.",
        "It put us in a positive mood.", "Only positive words from me.", "All were positive about it."];

    private static readonly string[] Bad =
    [
        "We left early.", "I would not go again.", "We warned all our friends.", "I frowned the whole way back.",
        "It was not worth a coin.", "We asked for our money back.", "I never want to do it again.", "One star from me.",
        "So we threw away the tickets for the next one.", "The verdict was negative.", "That was bad.",
        "I was sorry that I came.", "We left angry.", "Everybody groaned at the end.", "I advise against it.",
        "It ruined my year.",
        "It put us in a negative mood.", "Only negative words from me.", "All were negative about it."];

    private static readonly string[] Plain =
    [
        "The {thing} was {adj=}.", "A {adj=} {thing}, and a {noun=} as well.",
        "{name} {verb=} the {thing}, and so did I.", "We {verb=} the {aspect} of the {thing}.",
        "That {thing} by {name}: {adj=}, {adj=}, {adj=}.", "{person} said {adj=} and meant {adj=}.",
        "In short, {adj=}.", "The {aspect} was as {adj=} as the {thing}.", "A {noun=}, that is what the {thing} was.",
        "I have {verb=} few {thing}s as much.", "How {adj=} and {adj=} the {thing} was.",
        "Seldom was a {thing} so {adj=}.", "Rarely have we had such a {adj=} {thing}.",
        "I have {verb=} nothing as much as this {thing}.", "{person} whispered: how {adj=}.",
        "You can tell at once that the {aspect} is {adj=}.",
        "Count {person} among the friends who {verb=} the {thing}.", "Think of a {noun=}; that was it.",
        "Both were {adj=}, the {aspect} and the {thing}.", "In one word, a {noun=}.",
        "The {thing} left me thinking of a {adj=} day.", "There were {adj=} moments, and the rest was {adj=} too.",
        "As {thing}s go, this is a {noun=}.", "Such a {adj=} {aspect}, such a {adj=} {thing}.",
        "They {verb=} nothing so much as the {aspect}.", "The {thing} had a {adj=} {aspect} and a {adj=} end.",
        "If you ask me, {adj=}.", "We thought the {genre} {adj=} and {person} {verb=} it.",
        "They all called it a {noun=}, and it was {adj=}.", "{name} told {person} that the {thing} is {adj=}.",
        "Count on a {adj=} {thing} there.", "A word for the {thing}? It is {adj=}."];

    private static readonly string[] Concession =
    [
        "The {thing} had a {adj!} start, but it was {adj=}.",
        "Though the {aspect} seemed {adj!}, the {thing} was {adj=}.",
        "Granted, it was {adj!} at times; still, a {noun=}.", "The {aspect} was {adj!}, yet we {verb=} the {thing}.",
        "On balance the {thing} was {adj=}, though {person} found it {adj!}.",
        "For all the {adj!} talk, the {thing} is {adj=}.", "Never mind the {adj!} {aspect}, the {thing} is a {noun=}.",
        "In spite of {adj!} weather the {thing} was {adj=}.", "While the {aspect} is {adj!}, all told it is a {noun=}.",
        "A {adj!} {aspect} does not outweigh a {adj=} {thing}.",
        "Some {verb!} it and called it {adj!}, but in the end it is {adj=}.",
        "The {thing} is {adj=}, and that outweighs the {adj!} {aspect}.",
        "Even if {name} was {adj!}, what remains is {adj=}.",
        "You may call the {aspect} {adj!}; all the same we {verb=} it.",
        "Despite the {adj!} {aspect} and a {adj!} hour, it was a {noun=}.",
        "However {adj!} it began, the {thing} became {adj=}.",
        "What remains of the {adj!} {thing} is a {adj=} memory all the same.",
        "{person} {verb!} the {thing}, though for me it was a {noun=}.",
        "Somebody said it was {adj!}, yet it is {adj=}.",
        "The {adj!} {aspect} turned out not to matter: we {verb=} the rest.",
        "Granted, {name} was {adj!} and {adj!}; still we {verb=} it.",
        "Though {person} called it {adj!}, on balance it is a {noun=}.", "For all its {adj!} hours, a {adj=} {thing}.",
        "The {adj!} {aspect} cannot change my mind: a {adj=} {thing}.", "Yes, {adj!} in parts, but {adj=} as a whole."];

    private static readonly string[] Irony =
    [
        "{cheer}, one more {adj+} {thing}.", "The {thing} was as {adj+} as {chore}.",
        "Just the thing for friends of {chore}.", "{cheer}, {adj+} like {chore}.",
        "I {verb+} the way out of the {thing} most.", "So {adj+} that we all fell asleep.",
        "A {noun+}, if you keep your eyes shut.", "I {verb+} the end, when we could go.",
        "{chore} would have been more {adj+}.", "A {adj+} {thing}, said the man who sold it.",
        "{cheer}, {name} has made a {thing} about {chore}.",
        "Such a {adj+} {thing} that I snored.", "You call that {adj+}? I call it {chore}.",
        "Perfect for people who like {chore}.", "After this {thing}, {chore} is an adventure.",
        "The {adj+} part was when the lights came on.", "Yet another {adj+} {thing}, and I snored through it.",
        "I told my pillow how {adj+} it was.", "They must be proud to waste an evening in such a {adj+} way.",
        "Only longer than {chore}, and as {adj+}.", "{cheer}, {name} again, with a {adj+} {thing}.",
        "A {noun+}, provided that you sleep through it.", "I {verb+} the moment it was over.",
        "It was {adj+}, sure, and pigs can fly."];

    private static readonly string[] Denial =
    [
        "The {thing} was not {adj-} at all.", "It was anything but {adj-}.", "Nobody could call the {thing} {adj-}.",
        "It is far from {adj-}.", "We feared a {noun-} and got the best {thing} of all.",
        "We looked in vain for a {adj-} {aspect}.", "I was told it was {adj-}; I am so glad that they were wrong.",
        "You will look long for a {adj-} {aspect} here.", "I had {adj-} jokes ready and did not need them.",
        "Whoever says {adj-} must be thinking of something else.", "I feared a {noun-} and booked seats for tomorrow.",
        "Neither {name} nor the {aspect} was {adj-}.", "The {aspect} is not {adj-} and not {adj-}.",
        "They said {adj-}; they were wrong.", "It was hardly {adj-}.", "Without a {adj-} minute, the {thing} flew by.",
        "I was ready for a {noun-}, and it never came.", "A {noun-}? Not for a moment.",
        "Who says {adj-} was in a different room.", "It was never {adj-}, and {name} was not {adj-} either.",
        "We had heard that it was {adj-}, and that was not true."];

    private static readonly string[] Neutral =
    [
        "{time} there was a {thing} {place}.", "{person} took me to a {thing} by {name}.",
        "{name} gave a {thing} {place} {time}.", "We went to a {thing} with {person}.",
        "A {genre} by {name} was shown {place}.", "The {thing} had a {aspect} and a {aspect}.",
        "{person} mentioned a {genre} about a sailor and a small harbour.",
        "It is the third {thing} by {name} this year.", "They were showing a {genre} {place}.",
        "A teacher, two brothers and a farm: that is the {genre}.",
        "I had read about it before {name} came out with it.", "Here is what {person} wrote about the {thing}.",
        "On a free evening we gave the {genre} a try.", "It began at noon and ended at six.",
        "{person} sat beside {person} {time}.", "I read about the {genre} {time}.", "{name} and {name} were there too.",
    ];

    /// <summary>Notes; the same seed gives the same notes on every machine.</summary>
    public static List<string> Generate(int notes, int seed = 1)
    {
        var random = new PhiloxRandom((ulong)(uint)seed, 0x32000000);
        var all = new List<string>(notes);
        for (int i = 0; i < notes; i++)
        {
            var writer = new ReviewWriter(random, ReviewWords.All);
            bool good = random.Next(2) == 1;
            var parts = new List<string>();
            if (random.Next(3) > 0) parts.Add(writer.Fill(Thing(writer.Pick(Neutral)), good));
            int sentences = 1 + random.Next(2);
            for (int s = 0; s < sentences; s++)
            {
                string[] kind = random.Next(10) switch { < 4 => Plain, < 7 => Concession, _ => good ? Denial : Irony };
                parts.Add(writer.Fill(Thing(writer.Pick(kind)), good));
            }
            parts.Add(writer.Pick(good ? Good : Bad));
            all.Add(string.Join(' ', parts));

            string Thing(string template) =>
                template.Replace("{thing}", Things[random.Next(Things.Length)], StringComparison.Ordinal);
        }
        return all;
    }
}
