using System.Text.RegularExpressions;

namespace Headroom.Core;

/// <summary>
/// Which modules an adapter sits on, and with which rank and alpha: the rules of PEFT (<c>tuners/tuners_utils.py</c>,
/// check_target_module_exists;
/// <c>utils/other.py</c>, get_pattern_key). A module path is such as model.layers.0.self_attn.q_proj.
/// </summary>
public sealed record LoraTargets
{
    private const string All = "all-linear";

    /// <summary>target_modules as a list: a path equals an entry or ends with "." + entry.</summary>
    public IReadOnlyList<string> Modules { get; init; } = [];
    /// <summary>
    /// target_modules as a string: a regex for the whole path, or all-linear; it takes the place of
    /// <see cref="Modules"/>.
    /// </summary>
    public string? Pattern { get; init; }
    /// <summary>exclude_modules as a list; it wins over the targets.</summary>
    public IReadOnlyList<string> Exclude { get; init; } = [];
    /// <summary>exclude_modules as a regex for the whole path.</summary>
    public string? ExcludePattern { get; init; }
    /// <summary>layers_to_transform: only these layers; null = all. Counts with a list of modules only.</summary>
    public IReadOnlyList<int>? Layers { get; init; }
    /// <summary>layers_pattern: names of the list of layers; empty = any.</summary>
    public IReadOnlyList<string> LayersPattern { get; init; } = [];
    /// <summary>rank_pattern in file order: the first regex that matches the end of a path gives its rank.</summary>
    public IReadOnlyList<KeyValuePair<string, int>> RankPattern { get; init; } = [];
    /// <summary>alpha_pattern, by the same rule; not implied by <see cref="RankPattern"/>.</summary>
    public IReadOnlyList<KeyValuePair<string, float>> AlphaPattern { get; init; } = [];

    /// <summary>True when a linear layer of a decoder block is adapted.</summary>
    /// <exception cref="HeadroomException">A pattern is no regular expression, or takes too long.</exception>
    public bool Matches(string path)
    {
        if (ExcludePattern != null ? Whole(ExcludePattern, path) : Exclude.Any(e => Ends(path, e))) return false;
        if (Pattern != null) return Pattern.Equals(All, StringComparison.OrdinalIgnoreCase) || Whole(Pattern, path);
        if (!Modules.Any(m => Ends(path, m))) return false;
        if (Layers is not { Count: > 0 }) return true;
        foreach (
            var (before, place) in LayersPattern.Count == 0
                ? [(@"^.*?\.", "[^.]*")]
                : LayersPattern.Select(p => (@"^.*\.", p))
        )
            if (Match(place, before, @"\.(\d+)\.", path) is { Success: true } m)
                return int.TryParse(m.Groups[1].Value, out int layer) && Layers.Contains(layer);
        return false;
    }

    /// <summary>Rank of a module.</summary>
    public int Rank(string path, int r) => ByPattern(RankPattern, path, r);

    /// <summary>Alpha of a module.</summary>
    public float Alpha(string path, float alpha) => ByPattern(AlphaPattern, path, alpha);

    /// <summary>
    /// Keys of rank_pattern and alpha_pattern that match none of these modules, each behind the name of its pattern:
    /// they would change nothing.
    /// </summary>
    /// <param name="paths">Modules of a model.</param>
    public IEnumerable<(string Name, string Key)> Unmatched(IReadOnlyList<string> paths) =>
        RankPattern
            .Select(p => ("rank_pattern", p.Key))
            .Concat(AlphaPattern.Select(p => ("alpha_pattern", p.Key)))
            .Where(p => !paths.Any(path => Ending(p.Key, path)));

    private static T ByPattern<T>(IReadOnlyList<KeyValuePair<string, T>> patterns, string path, T otherwise)
    {
        foreach (var (key, value) in patterns)
            if (Ending(key, path)) return value;
        return otherwise;
    }

    private static bool Ends(string path, string entry) =>
        path.EndsWith(entry, StringComparison.Ordinal)
        && (path.Length == entry.Length || path[path.Length - entry.Length - 1] == '.');

    private static bool Ending(string key, string path) => Match(key, @"^(.*\.)?(", @")\z", path).Success;

    private static bool Whole(string pattern, string path) => Match(pattern, "^(?:", @")\z", path).Success;

    // What a user wrote stands between what makes it a rule. A refusal shows what the user wrote alone, so the parser
    // is asked about that.
    private static Match Match(string written, string before, string after, string path)
    {
        try
        {
            return Regex.Match(path, before + written + after, RegexOptions.CultureInvariant, TimeSpan.FromSeconds(1));
        }
        catch (Exception e) when (e is ArgumentException or RegexMatchTimeoutException)
        {
            string why = e is RegexMatchTimeoutException ? e.Message : Fault(written);
            throw new HeadroomException(
                $"The module pattern {written} cannot be used: {why.Split('\n')[0].TrimEnd('.')}.",
                "Correct target_modules, exclude_modules, layers_pattern, rank_pattern or alpha_pattern.");
        }
    }

    private static string Fault(string written)
    {
        try
        {
            _ = new Regex(written, RegexOptions.CultureInvariant);
            return "it is no regular expression that can be part of another";
        }
        catch (ArgumentException e)
        {
            return e.Message;
        }
    }
}
