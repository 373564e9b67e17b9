using System.Text;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Headroom.Core;
using Headroom.Tokenizers;

namespace Headroom.Fuzz;

/// <summary>
/// Our tokenizers against Hugging Face's library: a case is one text under one tokenizer.json: its ids with and without
/// special tokens, and the text of ids.
/// </summary>
internal sealed class TokenizerFuzz
{
    private const int Batch = 24, Probes = 220;
    private readonly Options _options;
    private readonly TokenizerCases _cases;
    private readonly Texts _texts;
    private readonly Oracle _oracle;
    private readonly Tally _tally;

    private sealed record Group(long Number, JsonObject Json, List<string> Texts, List<int[]> Ids);

    private TokenizerFuzz(Options options, Oracle oracle)
    {
        (_options, _oracle) = (options, oracle);
        (_cases, _texts) = (new TokenizerCases(options.Shared), new Texts(options.Shared));
        _tally = new Tally("tokenizers", options.Out, options.Most);
    }

    public static int Run(Options options)
    {
        using var oracle = new Oracle("node", Path.Combine(options.Modules, "tokenizers.mjs"));
        return new TokenizerFuzz(options, oracle).Run();
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
        var dice = new Dice(_options.Seed, number);
        var (json, own, count) = _cases.Next(dice);
        var texts = Enumerable.Range(0, count).Select(_ => _texts.Next(dice, own)).ToList();
        int pieces = json["model"]!["vocab"] is JsonObject vocab
            ? vocab.Count + (json["added_tokens"]?.AsArray().Count ?? 0) + 2
            : 50;
        var ids = Enumerable
            .Range(0, 4)
            .Select(_ => Enumerable.Range(0, dice.To(12)).Select(_ => dice.To(pieces)).ToArray())
            .ToList();
        return new Group(number, json, texts, ids);
    }

    private static JsonObject Question(Group g) => new()
    {
        ["t"] = TokenizerCases.Write(g.Json),
        ["x"] = new JsonArray(g.Texts.Select(t => (JsonNode)t).ToArray()),
        ["d"] = new JsonArray(g.Ids.Select(l => (JsonNode)Array(l)).ToArray()),
    };

    private static JsonArray Array(IEnumerable<int> ids) => new(ids.Select(i => (JsonNode)i).ToArray());

    private void Compare(Group g, JsonNode? theirs)
    {
        int cases = g.Texts.Count;
        if (theirs == null)
        {
            _tally.Add(Outcome.NoVerdict, cases);
            return;
        }
        BpeTokenizer ours;
        try
        {
            ours = TokenizerLoader.FromBytes(Encoding.UTF8.GetBytes(TokenizerCases.Write(g.Json)));
        }
        catch (HeadroomException e)
        {
            if (theirs["e"] != null) _tally.Add(Outcome.BothFail, cases);
            else if (Named(e.Message)) _tally.Refused(Reason(e.Message), cases);
            else Show(g, "", "load", "loads", e.Message);
            return;
        }
        if (theirs["e"] is { } error)
        {
            LaterFailure(g, ours, (string)error!);
            return;
        }
        for (int i = 0; i < cases && !_tally.Full; i++)
            if (Text(ours, g.Texts[i], theirs, i) is { } d)
            {
                // some refusals need a text: a normalizer that finds the empty text in it
                if (d.Ours.StartsWith("error: ", StringComparison.Ordinal) && Named(d.Ours))
                    _tally.Refused(Reason(d.Ours[7..]), 1);
                else Show(g, g.Texts[i], d.What, d.Theirs, d.Ours);
            }
            else _tally.Add(Outcome.Agreed);
        for (int i = 0; i < g.Ids.Count && !_tally.Full; i++)
            if (
                Try(() => ours.Decode(g.Ids[i])) is var text
                && text != (string)theirs["d"]![i]!
                && !BySpelling(ours, g.Ids[i])
            )
                Show(g, "", "decode " + string.Join(' ', g.Ids[i]), (string)theirs["d"]![i]!, text);
    }

    // The peer fails for the whole group: at load, or at one of the texts. Ours has to fail too, at load or at one of
    // them.
    private void LaterFailure(Group g, BpeTokenizer ours, string error)
    {
        bool fails = g.Texts.Exists(t =>
            Try(() => ours.Encode(t, true).Length.ToString()).StartsWith("error", StringComparison.Ordinal)
        );
        if (fails) _tally.Add(Outcome.BothFail, g.Texts.Count);
        else if (
            error.Contains("panic", StringComparison.OrdinalIgnoreCase)
            || error.Contains("unreachable", StringComparison.OrdinalIgnoreCase)
        )
            _tally.Add(Outcome.NoVerdict, g.Texts.Count);
        else Show(g, "", "load", "error: " + error, "loads and encodes");
    }

    private static (string What, string Theirs, string Ours)? Text(
        BpeTokenizer ours, string text, JsonNode theirs, int i)
    {
        string plain = Ids(theirs["p"]![i]!), special = Ids(theirs["s"]![i]!);
        string mine = Try(() => string.Join(' ', ours.Encode(text)));
        if (mine != plain) return ("ids", plain, mine);
        int[] all = [];
        mine = Try(() => string.Join(' ', all = ours.Encode(text, true)));
        if (mine != special) return ("ids with special tokens", special, mine);
        string back = (string)theirs["c"]![i]!;
        mine = Try(() => ours.Decode(all));
        return mine == back || BySpelling(ours, all) ? null : ("text of the ids", back, mine);
    }

    private static string Ids(JsonNode list) => string.Join(' ', list.AsArray().Select(n => (int)n!));

    // By design: an added token of a byte-level vocabulary is written as it is spelled (llama.cpp does so too), where
    // the peer reads its letters as bytes. A token that the normalizer goes over is spelled as it leaves it.
    private static bool BySpelling(BpeTokenizer ours, int[] ids)
    {
        string Spelling(AddedToken t) =>
            t.Normalized && ours.Parts.Normalizer is { } normalize ? normalize(t.Content) : t.Content;
        bool AllBytes(string s) => s.Any(c => c > '~') && s.All(c => ByteAlphabet.ToByte(c) >= 0);
        return ours.Parts.Added.Exists(t => ids.Contains(t.Id) && AllBytes(Spelling(t)));
    }

    private static string Try(Func<string> run)
    {
        try
        {
            return run();
        }
        catch (HeadroomException e)
        {
            return "error: " + e.Message;
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            return "crash: " + e;
        }
    }

    private static bool Named(string error) =>
        error.Contains("not supported", StringComparison.Ordinal)
        || error.Contains("can be read", StringComparison.Ordinal);

    private static string Reason(string error) =>
        Regex.Replace(error.Length > 110 ? error[..110] : error, "\"[^\"]*\"|\\d+", "..").ReplaceLineEndings(" ");

    private void Show(Group g, string text, string what, string theirs, string ours)
    {
        var small = _options.Group != null || g.Texts.Count < 100 ? Smaller(g.Json, text, what) : (g.Json, text);
        bool large = TokenizerCases.Write(small.Item1).Length > 20_000;
        var shown = new JsonObject
        {
            ["replay"] = FormattableString.Invariant($"tokenizers --seed {_options.Seed} --group {g.Number}"),
            ["what"] = what,
            ["text"] = small.Item2,
            ["theirs"] = theirs,
            ["ours"] = ours,
            ["tokenizer"] = large ? Outline(small.Item1) : small.Item1.DeepClone(),
        };
        if (text.Length > 0 && Ask(small.Item1, small.Item2) is { } now)
            (shown["theirs"], shown["ours"]) = (now.Theirs, now.Ours);
        _tally.Difference(shown);
    }

    private static JsonObject Outline(JsonObject json)
    {
        var shown = new JsonObject();
        foreach (var (key, value) in json)
            if (key == "model")
                shown[key] = new JsonObject(
                    value!
                        .AsObject()
                        .Where(p => p.Key is not ("vocab" or "merges"))
                        .Select(p => KeyValuePair.Create(p.Key, p.Value?.DeepClone()))
                );
            else if (key != "added_tokens" || value!.AsArray().Count < 40) shown[key] = value?.DeepClone();
        return shown;
    }

    /// <summary>What differs for one text, or null.</summary>
    private (string What, string Theirs, string Ours)? Ask(JsonObject json, string text)
    {
        var theirs = _oracle.Ask([Question(new Group(0, json, [text], []))])[0];
        if (theirs == null || theirs["e"] != null) return null;
        try
        {
            return Text(TokenizerLoader.FromBytes(Encoding.UTF8.GetBytes(TokenizerCases.Write(json))), text, theirs, 0);
        }
        catch (HeadroomException)
        {
            return null;
        }
    }

    /// <summary>Drops parts of the file and of the text while the difference stays.</summary>
    private (JsonObject, string) Smaller(JsonObject json, string text, string what)
    {
        if (text.Length == 0 || Ask(json, text) is not { } first || first.What != what) return (json, text);
        int probes = Probes;
        bool Still(JsonObject j, string t) => probes-- > 0 && Ask(j, t) is { } d && d.What == what;
        foreach (var step in Cuts(json))
        {
            var less = json.DeepClone().AsObject();
            if (step(less) && Still(less, text)) json = less;
        }
        for (int size = Math.Max(1, text.Length / 2); size > 0; size /= 2)
            for (int at = 0; at + size <= text.Length && probes > 0;)
            {
                string less = Texts.Whole(text.Remove(at, size));
                if (!less.Contains('\uFFFD') && Still(json, less)) text = less; else at += size;
            }
        return (json, text);
    }

    private static IEnumerable<Func<JsonObject, bool>> Cuts(JsonObject json)
    {
        foreach (
            string part in (string[])
                ["post_processor", "decoder", "normalizer", "pre_tokenizer", "truncation", "padding"]
        )
            yield return j => j[part] != null && (j[part] = null) == null;
        int tokens = json["added_tokens"]?.AsArray().Count ?? 0;
        for (int i = tokens - 1; i >= 0; i--)
        {
            int at = i;
            yield return j =>
            {
                if (at >= j["added_tokens"]!.AsArray().Count)
                    return false;
                j["added_tokens"]!.AsArray().RemoveAt(at);
                return true;
            };
        }
        foreach (
            var (part, list) in new[]
            {
                ("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers"), ("decoder", "decoders"),
                ("post_processor", "processors"),
            }
        )
            for (int i = 3; i >= 0; i--)
            {
                int at = i;
                yield return j =>
                {
                    if (j[part]?[list] is not JsonArray a || at >= a.Count)
                        return false;
                    a.RemoveAt(at);
                    return true;
                };
            }
        for (int i = (json["model"]!["merges"]?.AsArray().Count ?? 0) - 1; i >= 0 && i < 60; i--)
        {
            int at = i;
            yield return j =>
            {
                if (j["model"]!["merges"] is not JsonArray a || at >= a.Count)
                    return false;
                a.RemoveAt(at);
                return true;
            };
        }
        foreach (string flag in (string[])["ignore_merges", "byte_fallback", "fuse_unk"])
            yield return j =>
            {
                if (j["model"]![flag] is not JsonValue v || !(bool)v)
                    return false;
                j["model"]![flag] = false;
                return true;
            };
    }
}
