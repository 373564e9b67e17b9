using System.Text;
using Headroom.Tokenizers;

namespace Headroom.Inference;

/// <summary>
/// Tokens to text as they come: half characters wait for their other bytes, and text that may be the beginning of a
/// stop string waits until it is decided. Only a window of the last tokens is decoded again, so the cost of a token
/// does not grow with the text.
/// </summary>
internal sealed class TextStream
{
    private const int LeadTokens = 6; // of the prompt: enough that a first piece keeps its leading blank
    private const int LongestHalf = 8; // tokens; a character has at most four bytes

    private readonly ITokenizer _tokenizer;
    private readonly string[] _stops;
    private readonly StringBuilder _waiting = new();
    private readonly List<int> _window = [];
    private int _shown; // tokens of the window whose text is out

    /// <summary>Text that follows a prompt.</summary>
    public TextStream(ITokenizer tokenizer, ReadOnlySpan<int> prompt, IEnumerable<string> stops)
    {
        _tokenizer = tokenizer;
        _stops = stops.Where(s => s.Length > 0).ToArray();
        foreach (int id in prompt[Math.Max(0, prompt.Length - LeadTokens)..])
            if (id != tokenizer.BosId) _window.Add(id);
        _shown = _window.Count;
    }

    /// <summary>A stop string came; it and what follows are not part of the text.</summary>
    public bool Stopped { get; private set; }

    /// <summary>Takes a token; returns the text that is certain now, often one piece, sometimes nothing.</summary>
    public string Add(int id)
    {
        _window.Add(id);
        string before = Decode(_shown), all = Decode(_window.Count);
        // A half character, or a piece that changes what stands before it: wait, but not for ever.
        if (
            (all.EndsWith('\uFFFD') || !all.StartsWith(before, StringComparison.Ordinal))
            && _window.Count - _shown < LongestHalf
        )
            return "";
        string text = all[before.AsSpan().CommonPrefixLength(all)..];
        // The next window starts with the tokens just shown.
        _window.RemoveRange(0, _shown);
        _shown = _window.Count;
        return Certain(text, last: false);
    }

    /// <summary>What still waits, when nothing follows.</summary>
    public string End()
    {
        if (Stopped) return "";
        string before = Decode(_shown), all = Decode(_window.Count);
        _shown = _window.Count;
        return Certain(all[before.AsSpan().CommonPrefixLength(all)..], last: true);
    }

    private string Decode(int count) =>
        count == 0 ? "" : _tokenizer.Decode(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(_window)[..count]);

    private string Certain(string text, bool last)
    {
        if (_stops.Length == 0) return text;
        _waiting.Append(text);
        string all = _waiting.ToString();
        int cut = -1;
        foreach (string stop in _stops)
            if (all.IndexOf(stop, StringComparison.Ordinal) is var at and >= 0 && (cut < 0 || at < cut)) cut = at;
        if (cut >= 0)
        {
            Stopped = true;
            _waiting.Clear();
            return all[..cut];
        }
        int hold = 0;
        if (!last)
            foreach (string stop in _stops)
                for (int n = Math.Min(stop.Length - 1, all.Length); n > hold; n--)
                    if (all.AsSpan(all.Length - n).SequenceEqual(stop.AsSpan(0, n)))
                    {
                        hold = n;
                        break;
                    }
        _waiting.Clear().Append(all, all.Length - hold, hold);
        return all[..^hold];
    }
}
