using System.Text.Json.Nodes;
using Headroom.Core;

namespace Headroom.Training.Data.Forms;

/// <summary>Two answers to a prompt, or one with whether it is wanted.</summary>
/// <param name="First">Prompt with the chosen answer.</param>
/// <param name="Second">
/// Prompt with the rejected answer; of a single answer the prompt with that of another row.
/// </param>
/// <param name="Wanted">Of a single answer whether it is wanted; null of a pair.</param>
internal sealed record Preference(Example First, Example Second, bool? Wanted = null) : Example
{
    /// <inheritdoc/>
    public override string Words => Wanted == null ? First.Words + "\n" + Second.Words : $"{First.Words}\n{Wanted}";

    /// <summary>The same prompt beside the answer of another row.</summary>
    public Preference WithOther(Preference other) => this with { Second = Mixed(First, other.First) };

    private static Example Mixed(Example own, Example other) => (own, other) switch
    {
        (Completion a, Completion b) => a with { Answer = b.Answer },
        (Conversation a, Conversation b) => Mixed(a, b),
        _ => throw new HeadroomException(
            "Some rows are texts and some are messages.", "Give all answers in one of the two ways."),
    };

    private static Conversation Mixed(Conversation a, Conversation b)
    {
        int prompt = FirstLearned(a), answer = FirstLearned(b);
        JsonNode[] all = [.. a.Messages.Take(prompt).Concat(b.Messages.Skip(answer)).Select(m => m!.DeepClone())];
        return a with
        {
            Messages = new JsonArray(all),
            Learned = [.. Enumerable.Repeat(false, prompt), .. b.Learned.Skip(answer)],
        };
    }

    // The first message that is learned.
    private static int FirstLearned(Conversation c) => c.Learned.TakeWhile(l => !l).Count();
}

/// <summary>Pairs of answers, as TRL's data sets have them.</summary>
internal static class PreferenceReader
{
    /// <summary>A pair; without a prompt of its own that is what both answers begin with.</summary>
    /// <exception cref="HeadroomException">
    /// A column is missing, of another kind, or both answers are the same.
    /// </exception>
    public static Preference Read(ColumnReader row, string prompt, string chosen, string rejected)
    {
        bool messages = row.HoldsList(chosen), asked = row.Find(prompt) != null;
        if (messages != row.HoldsList(rejected))
            throw row.Bad("one answer is a text and the other messages", "Give both in the same way");
        var pair = messages
            ? asked ? new Preference(
                    ConversationReader.ReadPair(row, prompt, chosen),
                    ConversationReader.ReadPair(row, prompt, rejected))
                : PartedMessages(row, chosen, rejected)
            : asked ? new(
                    new Completion(row.Text(prompt), row.Text(chosen)),
                    new Completion(row.Text(prompt), row.Text(rejected)))
                : Parted(row, row.Text(chosen), row.Text(rejected));
        return pair.First.Words != pair.Second.Words ? pair : throw row.Bad(
            "chosen and rejected are the same", "Drop the row: there is nothing to prefer");
    }

    // TRL's extract_prompt: what both have in common, up to the last blank of it.
    private static Preference Parted(ColumnReader row, string a, string b)
    {
        int same = a.AsSpan().CommonPrefixLength(b);
        while (same > 0 && !char.IsWhiteSpace(a[same - 1])) same--;
        while (same > 0 && char.IsWhiteSpace(a[same - 1])) same--; // the blank goes to the answer
        return !string.IsNullOrWhiteSpace(a[same..]) && !string.IsNullOrWhiteSpace(b[same..])
            ? new(new Completion(a[..same], a[same..]), new Completion(b[..same], b[same..]))
            : throw row.Bad("one answer is the beginning of the other", "Give the prompt in a column of its own");
    }

    private static Preference PartedMessages(ColumnReader row, string chosen, string rejected)
    {
        var (a, b) = (ConversationReader.Read(row, chosen), ConversationReader.Read(row, rejected));
        int same = a.Messages.Zip(b.Messages).TakeWhile(m => JsonNode.DeepEquals(m.First, m.Second)).Count();
        Conversation Only(Conversation c) => c with { Learned = [.. c.Learned.Select((l, i) => l && i >= same)] };
        var (first, second) = (Only(a), Only(b));
        return first.Learned.Contains(true) && second.Learned.Contains(true) ? new(first, second)
            : throw row.Bad("an answer has no message of an assistant", "End both with what the assistant says");
    }
}
