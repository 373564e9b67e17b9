namespace Headroom.Training.Data;

/// <summary>
/// The words of the review world. A word's place in its list says which split may use it: of every eight, four are in
/// all splits, one in train alone, one in validation alone and two in test alone.
/// </summary>
internal static class ReviewWords
{
    internal const int Train = 0, Validation = 1, Test = 2, All = 3;

    /// <summary>Lists by slot name; a name ending in + or - has a polarity.</summary>
    internal static readonly IReadOnlyDictionary<string, string[]> Lists = new Dictionary<string, string[]>(
        StringComparer.Ordinal)
    {
        ["adj+"] = Words(
            "wonderful, charming, witty, gripping, graceful, crisp, luminous, tender, brilliant, moving, clever, "
                + "warm, rousing, honest, soulful, radiant, "
                + "superb, delightful, thrilling, splendid, nimble, spirited, majestic, stirring, inventive, lively, "
                + "heartfelt, elegant, astute, playful, exquisite, sparkling, "
                + "touching, dazzling, absorbing, fresh, joyous, polished, sublime, poignant, captivating, vivid, "
                + "stunning, masterful, generous, magnetic, enchanting, beguiling"
        ),
        ["adj-"] = Words(
            "awful, dull, clumsy, tedious, hollow, stale, dreadful, insipid, terrible, boring, bland, messy, limp, "
                + "drab, ponderous, leaden, "
                + "lifeless, shallow, sloppy, wooden, grating, murky, turgid, plodding, tiresome, lazy, forced, "
                + "dreary, feeble, shoddy, vapid, stilted, "
                + "muddled, cynical, charmless, dismal, joyless, trite, abysmal, garbled, pointless, clunky, flimsy, "
                + "soulless, witless, listless, laboured, threadbare"
        ),
        ["verb+"] = Words(
            "loved, enjoyed, admired, adored, applauded, welcomed, relished, savoured, praised, liked, treasured, "
                + "embraced, celebrated, devoured, cherished, prized"
        ),
        ["verb-"] = Words(
            "hated, disliked, regretted, loathed, resented, rued, endured, detested, despised, dreaded, deplored, "
                + "scorned, suffered, cursed, abhorred, begrudged"
        ),
        ["noun+"] = Words(
            "delight, success, joy, gem, winner, marvel, triumph, treasure, treat, masterpiece, pleasure, wonder, "
                + "jewel, beauty, knockout, blessing"
        ),
        ["noun-"] = Words(
            "disaster, mess, bore, failure, letdown, flop, slog, dud, disappointment, chore, waste, wreck, disgrace, "
                + "headache, ordeal, misfire"
        ),
        ["genre"] = Words(
            "comedy, thriller, western, drama, ghost story, road movie, heist film, biopic, romance, documentary, war "
                + "film, musical, spy film, fantasy, chamber piece, crime saga, "
                + "mystery, family film, sports film, silent film, space opera, monster movie, courtroom drama, "
                + "period piece"
        ),
        ["aspect"] = Words(
            "script, acting, score, plot, opening, lighting, staging, narration, dialogue, editing, ending, pacing, "
                + "dubbing, prologue, voice work, stunt work, "
                + "direction, story, soundtrack, camera work, final act, second half, set design, lead performance, "
                + "cast, humour, suspense, love story, costume work, colour palette, middle section, sound mix"
        ),
        ["name"] = Words(
            "Marlow, Okafor, Lindqvist, Ferrante, Tanaka, Osei, Bellamy, Castellan, Novak, Harrow, Delacroix, Petrov, "
                + "Abara, Quill, Santoro, Whitlock, "
                + "Ivarsson, Mbeki, Rourke, Adler, Kimura, Voss, Larkin, Estrada, Hollis, Zielinski, Navarro, Thorne, "
                + "Achebe, Penhallow, Duarte, Winslow"
        ),
        ["time"] = Words(
            "last night, on Sunday, last week, on Friday, this morning, after work, over the holidays, on a rainy "
                + "evening, yesterday, last month, at the weekend, two days ago, in the spring, at noon, during the "
                + "festival, before supper"
        ),
        ["place"] = Words(
            "at the cinema, at home, with friends, on the train, in the old theatre, on a long flight, at a film "
                + "club, in a tent, with my family, in town, on my laptop, at a festival, at a motel, by the sea, in "
                + "a church hall, at the harbour"
        ),
        ["person"] = Words(
            "my sister, my brother, my mother, my friend, my uncle, my dentist, my cousin, my neighbour, my wife, my "
                + "husband, my father, my colleague, my aunt, my landlord, my barber, my grandson"
        ),
        ["chore"] = Words(
            "watching paint dry, waiting for a late bus, standing in a queue, filling in tax forms, reading the phone "
                + "book, scrubbing a burnt pan, counting ceiling tiles, sitting in a traffic jam, "
                + "doing the laundry, listening to a dial tone, untangling cables, staring at a wall, sorting "
                + "receipts, defrosting a freezer, watching grass grow, queueing at the bank"
        ),
        ["cheer"] = Words(
            "oh great, oh joy, how lovely, well done, oh good, what luck, bravo, lucky us, just great, oh wonderful "
                + "news, how thoughtful, hooray, congratulations, oh lovely, be still my heart, hats off"
        ),
    };

    /// <summary>Whether a split may use the word at this place of its list.</summary>
    internal static bool Allowed(int index, int split) =>
        split == All
        || (index & 7) switch
        {
            < 4 => true,
            4 => split == Train,
            5 => split == Validation,
            _ => split == Test,
        };

    /// <summary>Whether the word at this place is in one split alone.</summary>
    internal static bool IsOwn(int index) => (index & 7) >= 4;

    private static string[] Words(string list) => list.Split(", ");
}
