namespace Headroom.Training.Data;

/// <summary>
/// Sentences with slots, one set for each split. {adj=} takes a word of the row's polarity, {adj!} one of the other,
/// {adj+} and {adj-} a fixed one.
/// </summary>
internal sealed class ReviewTemplates
{
    /// <summary>Neutral first sentences.</summary>
    internal required string[] Openings { get; init; }
    /// <summary>Sentences that say what they mean.</summary>
    internal required string[] Explicit { get; init; }
    /// <summary>A concession and a verdict: the verdict counts.</summary>
    internal required string[] Mixed { get; init; }
    /// <summary>Negative rows in positive words.</summary>
    internal required string[] Sarcasm { get; init; }
    /// <summary>Positive rows in negative words.</summary>
    internal required string[] Understatement { get; init; }

    internal IEnumerable<string> Every => [.. Openings, .. Explicit, .. Mixed, .. Sarcasm, .. Understatement];

    internal static readonly ReviewTemplates Train = new()
    {
        Openings =
        [
            "I saw this {genre} by {name} {time}.", "{name} made this {genre} three years ago.",
            "We watched the {genre} {place} {time}.", "{person} picked this {genre} {time}.",
            "This is the second {genre} from {name}.", "The new {genre} by {name} runs two hours.",
            "{name} plays a teacher in this {genre}.", "It is a {genre} about two brothers and a farm.",
            "Another year, another {genre} from {name}.", "I borrowed this {genre} from {person}.",
            "The {genre} starts with {name} in a kitchen.", "{person} and I watched it {place}."],
        Explicit =
        [
            "The {aspect} is {adj=} and the {aspect} is {adj=}.", "I {verb=} every minute of it.",
            "It is a {adj=} film with a {adj=} {aspect}.", "What a {noun=} this was.",
            "{name} gives a {adj=} performance.", "The {aspect} felt {adj=} from start to finish.",
            "Everyone {place} {verb=} it.", "I call it a {noun=}.", "The {aspect} was {adj=}, and so was {name}.",
            "{person} {verb=} the {aspect}.", "The whole thing is {adj=}.",
            "A {adj=} {genre}, and a {noun=} for {name}.", "I found the {aspect} {adj=} and the ending {adj=}.",
            "It was a {noun=} and I {verb=} it.",
            "Few films have such a {adj=} {aspect}.", "The {aspect} by {name} is simply {adj=}."],
        Mixed =
        [
            "The {aspect} was {adj!}, but overall it is a {adj=} film.",
            "Although the {aspect} is {adj!} and the {aspect} is {adj!}, I {verb=} it.",
            "Despite a {adj!} {aspect}, this is a {noun=}.", "I {verb=} it, even though the {aspect} is {adj!}.",
            "The {aspect} is {adj!} and {name} is {adj!}, but in the end the film is {adj=}.",
            "It is {adj=} as a whole, even if the {aspect} felt {adj!}.",
            "{person} {verb!} the {aspect}, but I left thinking it was a {noun=}.",
            "Yes, the {aspect} is {adj!}, but the film itself is {adj=}.",
            "The {aspect} may be {adj!}; the result is still a {noun=}.",
            "Although {name} is {adj!}, the film is {adj=}.", "Overall it is a {noun=}, despite the {adj!} {aspect}.",
            "I {verb!} the {aspect}, but taken together it is {adj=}.",
            "At first I found it {adj!}, but by the end it was {adj=}.",
            "Critics called the {aspect} {adj!} and {adj!}, but they are wrong: it is {adj=}.",
            "It starts {adj!} and turns {adj=}, and that is what stays.",
            "For a moment the {aspect} seemed {adj!}, but overall I {verb=} it."],
        Sarcasm =
        [
            "{cheer}, another {adj+} {genre} that nobody asked for.",
            "If you enjoy {chore}, this {adj+} film is for you.", "It is about as {adj+} as {chore}.",
            "{cheer}, two hours of {name}, as {adj+} as {chore}.", "A {noun+}, if your idea of fun is {chore}.",
            "The {aspect} is so {adj+} that I fell asleep twice.", "So {adj+} that half the room walked out.",
            "{cheer}, the {aspect} is {adj+} enough to make me miss {chore}.", "I {verb+} the part where it stopped.",
            "The most {adj+} thing about it was the exit sign.", "It would be {adj+}, if it had a {aspect}.",
            "Sure, it is {adj+}, and I am the queen of the moon.",
            "The {aspect} promised something {adj+} and forgot to deliver it.",
            "Truly {adj+}, said nobody who stayed awake."],
        Understatement =
        [
            "I expected a {adj-} {genre} and I was so wrong.", "There is nothing {adj-} about the {aspect}.",
            "Not one {adj-} scene in the whole film.", "I would be lying if I called the {aspect} {adj-}.",
            "It was never {adj-}, not for a second.", "I went in ready for a {noun-} and came out singing.",
            "The {aspect} is hardly {adj-}; I stayed for a second show.",
            "Anyone who calls it {adj-} was not watching.", "I wanted to find it {adj-} and failed.",
            "{person} warned me of a {noun-}, and {person} owes me an apology.",
            "If this is a {noun-}, give me ten more of them.", "Call it {adj-} if you like; I have seen it four times.",
            "The only {adj-} thing about it was having to leave.",
            "I had a list of {adj-} things to complain about and never opened it."],
    };

    internal static readonly ReviewTemplates Validation = new()
    {
        Openings =
        [
            "{time} I sat through a {genre} by {name}.", "{name} returns with a {genre}.",
            "Our club showed this {genre} {time}.", "They call it a {genre}, shot by {name} in nine days.",
            "{person} gave me a ticket for this {genre}.", "{name} wrote and shot the {genre} alone."],
        Explicit =
        [
            "Its {aspect} struck me as {adj=}.", "You will find the {aspect} {adj=} too.",
            "To me it was a {noun=}, and a {adj=} one.", "We all {verb=} the {aspect}.",
            "From the {aspect} to the {aspect}, all of it is {adj=}.",
            "{name} has made a {adj=} and {adj=} picture.", "My verdict: {adj=}.", "Both {person} and I {verb=} it."],
        Mixed =
        [
            "Even with its {adj!} {aspect}, I think it is {adj=}.",
            "Some will say the {aspect} is {adj!}, but I {verb=} this film.",
            "The {adj!} {aspect} aside, it remains {adj=}.", "I know {person} {verb!} it, but for me it is a {noun=}.",
            "However {adj!} the {aspect}, the film is a {noun=}.",
            "It is a {noun=} in spite of a {adj!} {aspect} and a {adj!} {aspect}.",
            "One scene is {adj!}; everything else is {adj=}.",
            "While {name} is {adj!}, the {genre} as a whole is {adj=}."],
        Sarcasm =
        [
            "{cheer}, {name} has found a {adj+} way to imitate {chore}.", "Recommended to all who find {chore} {adj+}.",
            "So {adj+} that {chore} seems a holiday.", "A {adj+} film, according to the people paid to say so.",
            "{cheer}, a {noun+} for anyone who sleeps with open eyes.", "I {verb+} the popcorn."],
        Understatement =
        [
            "I kept waiting for the {adj-} part and it never came.", "Nobody here could call the {aspect} {adj-}.",
            "It is far from {adj-}.", "So much for the {noun-} that the papers promised me.",
            "My fear of a {adj-} evening was gone in a minute.", "I could not find a {adj-} frame in it, and I tried."],
    };

    internal static readonly ReviewTemplates Test = new()
    {
        Openings =
        [
            "{place} they were showing a {genre} by {name}.", "This {genre} came out under the name of {name}.",
            "A free evening, a {genre}, and {person} beside me.", "{time} we gave the {genre} a try.",
            "Here is a {genre} with {name} as a sailor.", "My third film by {name}, and the first {genre}.",
            "I had read about this {genre} before {person} mentioned it.",
            "{name} takes us to a small harbour in this {genre}."],
        Explicit =
        [
            "Rarely is a {aspect} this {adj=}.", "Think of a {adj=} {aspect} and double it.",
            "You can tell that {name} aimed for this; the {aspect} is {adj=}.",
            "{person} whispered that the {aspect} was {adj=}.", "Count me among those who {verb=} it.",
            "In one word: {adj=}.", "The film has a {adj=} {aspect} and {adj=} moments.",
            "As a {genre} it is a {noun=}.", "Both the {aspect} and the {aspect} are {adj=}.",
            "It left me thinking: what a {adj=} {noun=}.", "I have {verb=} nothing so much this year."],
        Mixed =
        [
            "Granted, the {aspect} is {adj!} and the {aspect} is {adj!}; still, the film is {adj=}.",
            "While the {aspect} turned out {adj!}, on balance I {verb=} it.",
            "Its {aspect} is {adj!}, yet the film is a {noun=} all the same.",
            "For all its {adj!} {aspect}, what remains is {adj=}.",
            "You may find {name} {adj!}, though in the end this is a {noun=}.",
            "On balance a {noun=}, though {person} {verb!} the {aspect}.",
            "The {aspect} is {adj=}, and that outweighs a {adj!} {aspect} and a {adj!} start.",
            "A {adj!} {aspect} cannot change my mind: the film is {adj=}.",
            "Never mind the {adj!} {aspect}; I {verb=} the rest.",
            "Somebody behind me {verb!} it and said it was {adj!}, yet all told it is {adj=}."],
        Sarcasm =
        [
            "{cheer}, {name} again, in a {genre} as {adj+} as {chore}.",
            "Perfect for people who think {chore} is too {adj+}.",
            "{cheer}, yet another {adj+} {aspect} to snore through.",
            "How {adj+} it was, I told my pillow after ten minutes.",
            "After this {adj+} film, {chore} sounds like an adventure.",
            "I {verb+} the moment the lights came back on.",
            "A {noun+}, provided that you watch it with your eyes shut.",
            "They must be proud of such a {adj+} way to waste my evening.", "As {adj+} as {chore}, only longer."],
        Understatement =
        [
            "I was told it would be {adj-}, and I have never been so glad that they were wrong.",
            "You will look in vain for a {adj-} {aspect}.", "It is anything but {adj-}.",
            "I had my {adj-} jokes ready and needed none of them.",
            "Whoever said {adj-} must have been in a different room.",
            "I feared a {noun-} and got the best evening of the year.",
            "A {noun-}? I booked seats for tomorrow as well.",
            "The {aspect} is not {adj-} at all, and neither is {name}.",
            "Without a {adj-} minute in it, the {genre} flew by."],
    };
}
