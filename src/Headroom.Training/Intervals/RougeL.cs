namespace Headroom.Training.Intervals;

/// <summary>
/// ROUGE-L (Lin 2004) as the package rouge_score computes it without a stemmer: words are runs of a to z and digits in
/// lower case, F1 of the longest common subsequence. In 0 to 1.
/// </summary>
internal static class RougeL
{
    /// <summary>The F1 of one pair; 0 where either has no words.</summary>
    public static double Score(string hypothesis, string reference)
    {
        var (h, r) = (Words(hypothesis), Words(reference));
        if (h.Count == 0 || r.Count == 0) return 0;
        double common = Common(h, r), precision = common / h.Count, recall = common / r.Count;
        return common == 0 ? 0 : 2 * precision * recall / (precision + recall);
    }

    private static int Common(List<string> a, List<string> b)
    {
        // One row of the table at a time: before[j] is the longest of what came before with the first j words of b.
        int[] before = new int[b.Count + 1], now = new int[b.Count + 1];
        foreach (string word in a)
        {
            for (int j = 0; j < b.Count; j++)
                now[j + 1] = word == b[j] ? before[j] + 1 : Math.Max(before[j + 1], now[j]);
            (before, now) = (now, before);
        }
        return before[b.Count];
    }

    private static List<string> Words(string text)
    {
        var words = new List<string>();
        int start = -1;
        string lower = text.ToLowerInvariant();
        for (int i = 0; i <= lower.Length; i++)
        {
            bool part = i < lower.Length && char.IsAsciiLetterOrDigit(lower[i]);
            if (part && start < 0) start = i;
            else if (!part && start >= 0)
            {
                words.Add(lower[start..i]);
                start = -1;
            }
        }
        return words;
    }
}
