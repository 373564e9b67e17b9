using System.Text;

namespace Headroom.Tokenizers;

/// <summary>One step of cutting a text into words.</summary>
internal abstract class PreStep
{
    /// <summary>Cuts the parts of text into output and returns the text that output points into.</summary>
    /// <param name="text">The text.</param>
    /// <param name="input">Parts so far, in order.</param>
    /// <param name="output">Parts from now on.</param>
    /// <param name="atStart">Whether the text opens the whole input.</param>
    public abstract string Apply(
        string text, List<(int Start, int Length)> input, List<(int Start, int Length)> output, bool atStart);

    /// <summary>
    /// Puts prefix before each part that does not start with it, or only before the one that opens the text. What lies
    /// between parts stays.
    /// </summary>
    protected static string Prefix(string text, char prefix, List<(int Start, int Length)> parts, bool onlyFirst)
    {
        bool Needs((int Start, int Length) part) =>
            part.Length > 0 && text[part.Start] != prefix && !(onlyFirst && part.Start > 0);
        if (!parts.Exists(Needs)) return text;
        var sb = new StringBuilder(text.Length + parts.Count);
        int done = 0;
        for (int i = 0; i < parts.Count; i++)
        {
            var (start, length) = parts[i];
            sb.Append(text, done, start - done);
            int from = sb.Length;
            if (Needs(parts[i])) sb.Append(prefix);
            sb.Append(text, start, length);
            done = start + length;
            parts[i] = (from, sb.Length - from);
        }
        return sb.Append(text, done, text.Length - done).ToString();
    }
}

/// <summary>Cuts by an expression.</summary>
internal sealed class CutStep(SplitStep split) : PreStep
{
    public override string Apply(
        string text, List<(int Start, int Length)> input, List<(int Start, int Length)> output, bool atStart)
    {
        foreach (var (start, length) in input) split.Split(text, start, length, output);
        return text;
    }
}

/// <summary>Byte-level step: an optional blank in front, then the GPT-2 expression.</summary>
internal sealed class ByteLevelStep(bool prefix, bool split) : PreStep
{
    private readonly SplitStep? _split = split ? SplitStep.Make(KnownSplits.Gpt2) : null;

    public override string Apply(
        string text, List<(int Start, int Length)> input, List<(int Start, int Length)> output, bool atStart)
    {
        if (prefix) text = Prefix(text, ' ', input, onlyFirst: false);
        if (_split == null) output.AddRange(input);
        else foreach (var (start, length) in input) _split.Split(text, start, length, output);
        return text;
    }
}

/// <summary>When a Metaspace step puts its mark in front.</summary>
internal enum PrependScheme { Never, First, Always }

/// <summary>Blanks become a mark; words start at the mark.</summary>
internal sealed class MetaspaceStep(char mark, PrependScheme scheme, bool split) : PreStep
{
    public PrependScheme Scheme => scheme;

    public override string Apply(
        string text, List<(int Start, int Length)> input, List<(int Start, int Length)> output, bool atStart)
    {
        text = text.Replace(' ', mark);
        if (scheme == PrependScheme.Always || (scheme == PrependScheme.First && atStart))
            text = Prefix(text, mark, input, scheme == PrependScheme.First);
        foreach (var (start, length) in input)
        {
            if (!split) { output.Add((start, length)); continue; }
            int from = start, end = start + length;
            while (from < end)
            {
                int next = text.AsSpan(from + 1, end - from - 1).IndexOf(mark);
                int to = next < 0 ? end : from + 1 + next;
                output.Add((from, to - from));
                from = to;
            }
        }
        return text;
    }
}

/// <summary>Parts of so many characters.</summary>
internal sealed class FixedLengthStep(int characters) : PreStep
{
    public override string Apply(
        string text, List<(int Start, int Length)> input, List<(int Start, int Length)> output, bool atStart)
    {
        foreach (var (start, length) in input)
        {
            int from = start, at = start, n = 0;
            foreach (var rune in text.AsSpan(start, length).EnumerateRunes())
            {
                at += rune.Utf16SequenceLength;
                if (++n < characters) continue;
                output.Add((from, at - from));
                (from, n) = (at, 0);
            }
            if (at > from) output.Add((from, at - from));
        }
        return text;
    }
}

/// <summary>
/// Cuts before each run of marks. Changes no id where no piece holds a mark after another character; it lets words be
/// looked up.
/// </summary>
internal sealed class WordStartStep : PreStep
{
    public const char Mark = '\u2581';

    public override string Apply(
        string text, List<(int Start, int Length)> input, List<(int Start, int Length)> output, bool atStart)
    {
        foreach (var (start, length) in input)
        {
            int from = start, end = start + length, at = start;
            while (at < end)
            {
                while (at < end && text[at] == Mark) at++;
                int next = text.AsSpan(at, end - at).IndexOf(Mark);
                at = next < 0 ? end : at + next;
                output.Add((from, at - from));
                from = at;
            }
        }
        return text;
    }

    /// <summary>
    /// Whether the cut is exact for a vocabulary: no piece that a merge makes holds a mark after another character.
    /// </summary>
    public static bool Fits(string piece)
    {
        for (int i = 1; i < piece.Length; i++) if (piece[i] == Mark && piece[i - 1] != Mark) return false;
        return true;
    }
}
