using Headroom.Core;
using Headroom.Formats.Data;

namespace Headroom.Training.Tasks.LabelWords;

internal sealed partial class LabelWordEncoder
{
    private const int MostChecked = 200;

    /// <summary>
    /// Compares the ids of rows (some two hundred of each split, evenly spaced) with those of prompt and label word
    /// tokenized as one text, which is what other programs make of it. Rows that are cut to max_seq_length are left
    /// out; every label word is tried.
    /// </summary>
    /// <param name="splits">Rows whose labels have label words.</param>
    /// <returns>A line for each thing a user should know before training: how many rows differ and the first of them,
    /// and doubled blanks; usually none.</returns>
    public IReadOnlyList<string> Check(params IReadOnlyList<DataRow>[] splits)
    {
        int compared = 0, differing = 0;
        string first = "";
        bool words = true;
        foreach (var rows in splits)
            for (int i = 0; i < rows.Count; i += Math.Max(1, rows.Count / MostChecked))
                Compare(rows[i].Texts, LabelIndex(rows[i].Label));
        if (compared == 0) Compare([.. _template.Columns.Select(_ => "x")], 0); // all are cut: the template alone
        var notes = new List<string>();
        if (differing > 0)
            notes.Add(
                $"{differing} of {compared} rows checked do not have the tokens of their joined text, which is what "
                    + $"other programs will feed: {first}. "
                + "A blank before each label word, and none at the end of the template, usually mends it.");
        if (_template.Blanks[^1].Length > 0 && LabelWords.FirstOrDefault(w => w[0] == ' ') is { } word)
            notes.Add(
                $"task.template ends in a blank and the label word '{HeadroomException.Value(word)}' begins with one, "
                    + $"so there are two between them."
            );
        return notes;

        void Compare(IReadOnlyList<string> texts, int label)
        {
            int[] prompt = Fit(texts, out bool cut);
            if (cut) return;
            compared++;
            bool found = false;
            string joined = _template.Fill(Replaced(texts)) + _template.Blanks[^1];
            for (int l = 0; l < LabelWords.Length; l++)
            {
                if (l != label && !words) continue;
                int[] apart = [.. prompt, .. Answers[l]],
                    whole = [.. _bos, .. _tokenizer.Encode(joined + LabelWords[l])];
                if (apart.AsSpan().SequenceEqual(whole)) continue;
                found = true;
                if (first.Length == 0) first = Differing(joined + LabelWords[l], apart, whole);
            }
            words = false;
            if (found) differing++;
        }
    }

    private string Differing(string text, int[] apart, int[] whole)
    {
        const int before = 2, shown = 8;
        int from = Math.Max(0, apart.AsSpan().CommonPrefixLength(whole) - before);
        string tail = text.Length <= 40 ? text : "…" + text[^(char.IsLowSurrogate(text[^40]) ? 39 : 40)..];
        return $"'{HeadroomException.Value(tail)}' is {Tokens(apart)} in the run and {Tokens(whole)} as one text";

        string Tokens(int[] ids) => "[" + (from > 0 ? "… " : "")
            + string.Join(
                ' ',
                ids.Skip(from).Take(shown).Select(id => $"'{HeadroomException.Value(_tokenizer.IdToToken(id), 24)}'"))
            + (ids.Length > from + shown ? " …" : "")
            + "]";
    }
}
