using Headroom.Core;

namespace Headroom.Inference.Bases;

/// <summary>In which of their named values two runs, or a run and a base, differ.</summary>
internal static class ValueDifferences
{
    private const int MostNamed = 4, MostShown = 80; // differences in a message, and characters of a value

    /// <summary>
    /// The keys in which two sets of values differ, in ordinal order; "default" stands for a value that is not written.
    /// </summary>
    public static IEnumerable<(string Key, string Old, string New)> Find(
        IReadOnlyDictionary<string, string> old, IReadOnlyDictionary<string, string> now) =>
        old.Keys.Union(now.Keys).Order(StringComparer.Ordinal)
            .Select(k => (Key: k, Old: old.GetValueOrDefault(k, "default"), New: now.GetValueOrDefault(k, "default")))
            .Where(d => d.Old != d.New);

    /// <summary>The first of them in words, for a message.</summary>
    public static string Named(List<(string Key, string Old, string New)> differences) =>
        string.Join(", ", differences.Take(MostNamed).Select(d =>
            $"{d.Key} is {HeadroomException.Value(d.New, MostShown)}, was {HeadroomException.Value(d.Old, MostShown)}"))
        + (differences.Count > MostNamed ? $" and {differences.Count - MostNamed} more" : "");
}
