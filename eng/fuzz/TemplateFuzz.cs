using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Headroom.Core;
using Headroom.Tokenizers;
using Headroom.Tokenizers.Chat;

namespace Headroom.Fuzz;

/// <summary>
/// Our chat templates against jinja2: a case is one template with one set of variables, and its text or that it fails.
/// </summary>
internal sealed class TemplateFuzz
{
    private const int Batch = 200, Sets = 8, Probes = 250;
    private static readonly DateTimeOffset Now = new(2024, 7, 6, 9, 5, 3, TimeSpan.Zero);
    private readonly Options _options;
    private readonly TemplateCases _cases;
    private readonly Oracle _oracle;
    private readonly Tally _tally;

    private sealed record Group(long Number, string Template, List<JsonObject> Variables);

    /// <summary>Names the special tokens and knows that there are no others.</summary>
    private sealed class Tokens : ITokenizer
    {
        public int VocabSize => 3;
        public int? BosId => 1;
        public int? EosId => 2;
        public bool AddBos => true;
        public bool AddEos => false;
        public string? ChatTemplate => null;
        public IReadOnlyDictionary<string, string>? SpecialTokens { get; } = new Dictionary<string, string>();
        public IReadOnlyList<string>? AdditionalSpecialTokens { get; } = [];
        public int[] Encode(string text, bool addSpecial = false) => [];
        public string Decode(ReadOnlySpan<int> ids) => "";
        public string IdToToken(int id) => id == 1 ? "<s>" : "</s>";
        public int? TokenToId(string token) => null;
    }

    private TemplateFuzz(Options options, Oracle oracle)
    {
        (_options, _oracle, _cases) = (options, oracle, new TemplateCases(options.Shared));
        _tally = new Tally("templates", options.Out, options.Most);
    }

    public static int Run(Options options)
    {
        using var oracle = new Oracle(options.Python, Path.Combine(Options.Root, "eng", "fuzz", "templates.py"));
        return new TemplateFuzz(options, oracle).Run();
    }

    private int Run()
    {
        long group = _options.Group ?? 0, shown = 0;
        do
        {
            var groups = Enumerable.Range(0, _options.Group == null ? Batch : 1).Select(i => Make(group + i)).ToList();
            group += groups.Count;
            var answers = _oracle.Ask(groups.ConvertAll(Question));
            for (int i = 0; i < groups.Count && !_tally.Full; i++) Compare(groups[i], answers[i]);
            if (_tally.Agreed / 50_000 > shown) { shown = _tally.Agreed / 50_000; _tally.Progress(); }
        } while (_options.Group == null && _tally.Agreed < _options.Cases && !_tally.Full);
        _tally.Progress();
        _tally.Reasons();
        return _tally[Outcome.Different] == 0 ? 0 : 1;
    }

    private Group Make(long number)
    {
        var (template, variables) = _cases.Next(new Dice(_options.Seed, number), Sets);
        return new Group(number, template, variables);
    }

    private static JsonObject Question(Group g) =>
        new() { ["t"] = g.Template, ["v"] = new JsonArray(g.Variables.Select(v => v.DeepClone()).ToArray()) };

    private void Compare(Group g, JsonNode? theirs)
    {
        for (int i = 0; i < g.Variables.Count && !_tally.Full; i++)
        {
            var answer = theirs?[i];
            string ours = Ours(g.Template, g.Variables[i], out bool failed, out bool named);
            var outcome = Judge(answer, ours, failed, named);
            if (outcome == Outcome.Refused) _tally.Refused(Regex.Replace(ours, "line \\d+|\"[^\"]*\"", ".."));
            else if (outcome != Outcome.Different) _tally.Add(outcome);
            else
            {
                Show(g, i);
                _tally.Add(Outcome.Different, g.Variables.Count - i - 1);
                return;
            }
        }
    }

    private static Outcome Judge(JsonNode? theirs, string ours, bool failed, bool named)
    {
        if (
            theirs == null
            || (string?)theirs["e"] == "timeout"
            || ((string?)theirs["e"])?.StartsWith("MemoryError", StringComparison.Ordinal) == true
        )
            return Outcome.NoVerdict;
        if (theirs["e"] != null) return failed ? Outcome.BothFail : Outcome.Different;
        if (failed) return named ? Outcome.Refused : Outcome.Different;
        return (string)theirs["o"]! == ours ? Outcome.Agreed : Outcome.Different;
    }

    private static string Ours(string template, JsonObject variables, out bool failed, out bool named)
    {
        (failed, named) = (true, false);
        try
        {
            string text = new ChatTemplate(template, new Tokens()).Render(
                variables["messages"]!.AsArray(), (bool)variables["add_generation_prompt"]!, variables, Now);
            failed = false;
            return text;
        }
        catch (HeadroomException e)
        {
            named = e.Message.Contains("not supported", StringComparison.Ordinal);
            return e.Message;
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            (failed, named) = (false, false);
            return "crash: " + e;
        }
    }

    private bool Differs(string template, JsonObject variables)
    {
        var theirs = _oracle.Ask([Question(new Group(0, template, [variables]))])[0]?[0];
        string ours = Ours(template, variables, out bool failed, out bool named);
        return Judge(theirs, ours, failed, named) == Outcome.Different;
    }

    private void Show(Group g, int set)
    {
        var (template, variables) = Smaller(g.Template, g.Variables[set]);
        var theirs = _oracle.Ask([Question(new Group(0, template, [variables]))])[0]?[0];
        string ours = Ours(template, variables, out bool failed, out _);
        var used = new JsonObject(
            variables
                .Where(v => template.Contains(v.Key, StringComparison.Ordinal))
                .Select(v => KeyValuePair.Create(v.Key, v.Value?.DeepClone()))
        );
        _tally.Difference(new JsonObject
        {
            ["replay"] = FormattableString.Invariant($"templates --seed {_options.Seed} --group {g.Number}"),
            ["template"] = template,
            ["theirs"] = theirs?.DeepClone(),
            ["ours"] = failed ? "error: " + ours : ours,
            ["variables"] = used,
        });
    }

    /// <summary>
    /// Cuts pieces out of the template while the difference stays; first between tags, then anywhere.
    /// </summary>
    private (string, JsonObject) Smaller(string template, JsonObject variables)
    {
        int probes = Probes;
        bool Still(string t) => probes-- > 0 && Differs(t, variables);
        var parts = Regex.Split(template, @"(?s)(\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\})").Where(p => p.Length > 0).ToList();
        for (int size = Math.Max(1, parts.Count / 2); size > 0; size /= 2)
            for (int at = 0; at + size <= parts.Count;)
            {
                var less = parts[..at].Concat(parts[(at + size)..]).ToList();
                if (less.Count > 0 && Still(string.Concat(less))) parts = less; else at += size;
                if (probes <= 0) break;
            }
        template = string.Concat(parts);
        for (int size = Math.Min(16, Math.Max(1, template.Length / 2)); size > 0; size /= 2)
            for (int at = 0; at + size <= template.Length && probes > 0;)
            {
                string less = Texts.Whole(template.Remove(at, size));
                if (!less.Contains('\uFFFD') && less.Length > 0 && Still(less)) template = less; else at += size;
            }
        return (template, variables);
    }
}
