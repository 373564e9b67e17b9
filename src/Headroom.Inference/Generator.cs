using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;
using Headroom.Core;
using Headroom.Formats.HuggingFace;
using Headroom.Models;
using Headroom.Tokenizers;
using Headroom.Tokenizers.Chat;

namespace Headroom.Inference;

/// <summary>What ends a text.</summary>
public enum FinishReason : byte
{
    /// <summary>Not ended yet.</summary>
    None,
    /// <summary>An end token or a stop string.</summary>
    Stop,
    /// <summary>max_new_tokens, or the planned context is full.</summary>
    Length,
    /// <summary>The caller gave up.</summary>
    Cancelled,
}

/// <summary>One text to generate.</summary>
public sealed record GenerationOptions
{
    /// <summary>At most so many tokens.</summary>
    public int MaxNewTokens { get; init; } = 256;
    /// <summary>How tokens are chosen.</summary>
    public SamplingOptions Sampling { get; init; } = new();
    /// <summary>Strings that end the text; they are not part of it.</summary>
    public IReadOnlyList<string> Stop { get; init; } = [];
    /// <summary>Token ids that end the text beside the model's own.</summary>
    public IReadOnlyList<int> StopIds { get; init; } = [];
}

/// <summary>
/// The one loop that makes text: generate, chat and <c>IChatClient</c> use it. It keeps the key/value cache between
/// texts and computes of a prompt only what differs from the text before. Not safe for use from several threads at
/// once.
/// </summary>
public sealed class Generator : IDisposable
{
    /// <summary>Context that is planned when none is asked for.</summary>
    public const int DefaultContext = 2048;

    private readonly Engine _engine;
    private readonly float[] _logits;
    private readonly HashSet<int> _ends;
    private readonly List<int> _held = []; // tokens whose keys and values are in the cache
    private KvCache _cache;
    private Generation? _running;

    /// <summary>Over an engine with a planned cache, which it owns from now on.</summary>
    /// <param name="engine">Engine with <see cref="BatchLimits.GenerateTokens"/>.</param>
    /// <param name="tokenizer">Its tokenizer.</param>
    /// <param name="ends">Ids that end every text.</param>
    internal Generator(Engine engine, ITokenizer tokenizer, IEnumerable<int> ends)
    {
        _engine = engine;
        Tokenizer = tokenizer;
        _ends = ends.ToHashSet();
        _logits = new float[engine.Model.Config.VocabSize];
        _cache = engine.StartGeneration();
    }

    /// <summary>Opens a model on a device, which the generator owns from now on.</summary>
    /// <param name="device">The device.</param>
    /// <param name="from">Which model.</param>
    /// <param name="contextLength">Prompt and answer together, tokens: the size of the key/value cache; null = what the
    /// model takes, at most <see cref="DefaultContext"/>.</param>
    /// <param name="say">Takes notes and warnings, a line each.</param>
    /// <param name="progress">Elements loaded and in all.</param>
    /// <exception cref="HeadroomException">The model or adapter cannot be used, or the context is longer than the
    /// model's.</exception>
    public static Generator Open(
        IDevice device, ModelSource from, int? contextLength = null, Action<string>? say = null,
        Action<long, long>? progress = null)
    {
        using var model = OpenModel.Open(from, say);
        int most = model.Config.MaxPositionEmbeddings, context = contextLength ?? Math.Min(DefaultContext, most);
        if (context > most)
            throw new HeadroomException(
                $"A context of {context} tokens exceeds the model's {most}.",
                "Shorten the prompt, lower max_new_tokens or the context length.");
        model.Check();
        if (StorageNote(model) is { } note) say?.Invoke(note);
        foreach (string line in model.Notices) say?.Invoke(line);
        if (GenerationConfig.Beside(from.Path).NotFollowed is { Count: > 0 } other)
            say?.Invoke(
                $"note: generation_config.json asks for what is not built, so its texts may differ from "
                    + $"transformers': {string.Join(", ", other)}"
            );
        var engine = model.Load(device, model.Settings(device), new BatchLimits(GenerateTokens: context), progress);
        try
        {
            return new Generator(engine, model.Tokenizer, EndIds(from.Path, model.Config, model.Tokenizer));
        }
        catch
        {
            engine.Dispose();
            throw;
        }
    }

    // Projections of other values than those that the adapter was trained over are said.
    private static string? StorageNote(OpenModel model)
    {
        if (model.Run is not { } run) return null;
        bool trained4bit = run.Quantization.LoadIn4bit,
            holds4bit = model.Quantization?.LoadIn4bit == true || model.IsQuantized;
        return trained4bit == holds4bit ? null
            : trained4bit
                ? "note: the adapter was trained over NF4 projections, and runs over the base's own values here; "
                    + "--load-in-4bit holds them as they were"
                : $"note: the adapter was trained over projections held as {run.LinearStorage}, and runs over NF4 here";
    }

    /// <summary>
    /// Everything that ends a text of a model: eos_token_id of generation_config.json and config.json, the tokenizer's
    /// EOS, and the token with which the chat template closes the assistant's turn.
    /// </summary>
    /// <param name="model">Where generation_config.json lies; null where nothing is to be read of it.</param>
    /// <param name="config">The model's configuration.</param>
    /// <param name="tokenizer">Its tokenizer.</param>
    internal static IReadOnlyList<int> EndIds(string? model, ModelConfig config, ITokenizer tokenizer)
    {
        var ids = new HashSet<int>([
            .. model == null ? [] : GenerationConfig.Beside(model).EosTokenIds, .. config.EosTokenIds]);
        if (tokenizer.EosId is { } eos) ids.Add(eos);
        if (tokenizer.ChatTemplate is { } source && ChatTemplate.EndToken(source, tokenizer) is { } end) ids.Add(end);
        return [.. ids];
    }

    /// <summary>The tokenizer.</summary>
    public ITokenizer Tokenizer { get; }
    /// <summary>The plan of the engine.</summary>
    internal Planning.MemoryPlan Plan => _engine.Plan;
    /// <summary>Name of the device.</summary>
    public string DeviceName => _engine.Device.Name;
    /// <summary>Longest prompt and answer together.</summary>
    public int ContextLength => _cache.Capacity;

    /// <summary>
    /// Starts a text. The prompt is computed by the first <see cref="Generation.MoveNext"/>; a text that was not
    /// finished ends here.
    /// </summary>
    /// <exception cref="HeadroomException">The prompt is empty, longer than the context, or an option is out of
    /// range.</exception>
    public Generation Start(ReadOnlySpan<int> prompt, GenerationOptions options)
    {
        if (prompt.IsEmpty) throw new HeadroomException("The prompt has no tokens.", "Give some text.");
        if (options.MaxNewTokens < 1)
            throw new HeadroomException("max_new_tokens must be at least 1.", "Give a positive number.");
        foreach (int id in options.StopIds)
            if ((uint)id >= (uint)_logits.Length)
                throw new HeadroomException(
                    $"There is no token {id} to stop at: the model's ids end at {_logits.Length - 1}.",
                    "Give an id of its vocabulary.");
        if (prompt.Length >= ContextLength)
            throw new HeadroomException(
                $"The prompt has {prompt.Length} tokens, the planned context {ContextLength}.",
                "Raise the context length, or start a new conversation.");
        foreach (int id in prompt)
            if ((uint)id >= (uint)_logits.Length)
                throw new HeadroomException(
                    $"The tokenizer gives id {id}, the model's vocabulary ends at {_logits.Length - 1}.",
                    "Use the model's own tokenizer.");
        _running?.Abandon();
        return _running = new Generation(this, prompt.ToArray(), options);
    }

    /// <summary>Runs a prompt to its end.</summary>
    public Generation Run(ReadOnlySpan<int> prompt, GenerationOptions options, CancellationToken stop = default)
    {
        var g = Start(prompt, options);
        while (g.MoveNext(stop))
        {
        }
        return g;
    }

    internal bool Ends(int id) => _ends.Contains(id);
    internal int Vocabulary => _logits.Length;
    internal bool Full => _held.Count >= ContextLength;

    /// <summary>
    /// Brings the cache to the prompt; returns how many of its tokens were there already. At least one token is
    /// computed, for its logits.
    /// </summary>
    internal int Prefill(ReadOnlySpan<int> prompt)
    {
        int same = Math.Min(CollectionsMarshal.AsSpan(_held).CommonPrefixLength(prompt), prompt.Length - 1);
        _held.RemoveRange(same, _held.Count - same);
        _cache.Length = same;
        Append(prompt[same..]);
        return same;
    }

    internal void Append(ReadOnlySpan<int> ids)
    {
        _engine.Decode(ref _cache, ids, _logits);
        _held.AddRange(ids);
    }

    internal Span<float> Logits => _logits;

    /// <inheritdoc/>
    public void Dispose()
    {
        _running?.Abandon();
        _engine.Dispose();
    }
}

/// <summary>A text in the making; every <see cref="MoveNext"/> makes one token.</summary>
public sealed class Generation
{
    private readonly Generator _generator;
    private readonly GenerationOptions _options;
    private readonly Sampler _sampler;
    private readonly TextStream _stream;
    private readonly int[] _prompt;
    private readonly List<int> _ids = [];
    private readonly StringBuilder _text = new();
    private readonly Stopwatch _clock = new();
    private bool _prefilled, _abandoned;

    internal Generation(Generator generator, int[] prompt, GenerationOptions options)
    {
        _generator = generator;
        _options = options;
        _prompt = prompt;
        _sampler = new Sampler(options.Sampling, generator.Vocabulary);
        _sampler.See(prompt);
        _stream = new TextStream(generator.Tokenizer, prompt, options.Stop);
    }

    /// <summary>The text that the last <see cref="MoveNext"/> made certain; may be empty.</summary>
    public string Piece { get; private set; } = "";
    /// <summary>Ids so far, without the one that ended the text.</summary>
    public IReadOnlyList<int> Ids => _ids;
    /// <summary>The text so far.</summary>
    public string Text => _text.ToString();
    /// <summary>Why it ended.</summary>
    public FinishReason Finish { get; private set; }
    /// <summary>Tokens of the prompt.</summary>
    public int PromptTokens => _prompt.Length;
    /// <summary>Tokens of the prompt that were in the cache from the text before.</summary>
    public int ReusedTokens { get; private set; }
    /// <summary>Seconds for the prompt.</summary>
    public double PromptSeconds { get; private set; }
    /// <summary>Seconds since then.</summary>
    public double DecodeSeconds { get; private set; }
    /// <summary>
    /// Tokens a second after the first one, which the prompt's pass gives; 0 when there was only one.
    /// </summary>
    public double TokensPerSecond => _ids.Count > 1 && DecodeSeconds > 0 ? (_ids.Count - 1) / DecodeSeconds : 0;

    /// <summary>
    /// Makes the next token; false when the text has ended (its last <see cref="Piece"/> may still hold text that had
    /// waited).
    /// </summary>
    public bool MoveNext(CancellationToken stop = default)
    {
        Piece = "";
        if (_abandoned) throw new InvalidOperationException("Another text was started on this generator.");
        if (Finish != FinishReason.None) return false;
        if (stop.IsCancellationRequested) return End(FinishReason.Cancelled);
        if (!_prefilled)
        {
            _clock.Start();
            ReusedTokens = _generator.Prefill(_prompt);
            PromptSeconds = _clock.Elapsed.TotalSeconds;
            _prefilled = true;
        }
        else if (_generator.Full) return End(FinishReason.Length);
        else _generator.Append([_ids[^1]]);
        if (!Finite.All(_generator.Logits))
            throw new NotFiniteException(
                $"The logits after {_prompt.Length + _ids.Count} tokens are NaN or infinite, so there is no next token."
            );
        int next = _sampler.Next(_generator.Logits);
        DecodeSeconds = _clock.Elapsed.TotalSeconds - PromptSeconds;
        if (_generator.Ends(next) || _options.StopIds.Contains(next)) return End(FinishReason.Stop);
        _ids.Add(next);
        Piece = _stream.Add(next);
        _text.Append(Piece);
        if (_stream.Stopped) Finish = FinishReason.Stop;
        else if (_ids.Count >= _options.MaxNewTokens)
        {
            string rest = _stream.End();
            Finish = _stream.Stopped ? FinishReason.Stop : FinishReason.Length;
            _text.Append(rest);
            Piece += rest;
        }
        return true;
    }

    internal void Abandon() => _abandoned = true;

    private bool End(FinishReason why)
    {
        Piece = _stream.End();
        _text.Append(Piece);
        Finish = why;
        return false;
    }
}
