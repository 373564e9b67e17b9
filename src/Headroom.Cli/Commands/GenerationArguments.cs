using System.CommandLine;
using System.Globalization;
using Headroom.Core;
using Headroom.Formats.HuggingFace;
using Headroom.Inference;

namespace Headroom.Cli.Commands;

/// <summary>
/// The options that generate and chat share; what is not given comes from the model's generation_config.json.
/// </summary>
/// <param name="example">A command line.</param>
/// <param name="tokens">max_new_tokens when neither the command line nor the model says.</param>
internal sealed class GenerationArguments(string example, int tokens)
{
    private readonly Argument<string> _model = new("model")
    {
        Description = $"A Hugging Face folder, a .gguf file, a hub name (org/name), or a run's folder. Example: "
            + example,
    };
    private readonly Option<string?> _adapter = new("--adapter") { Description = "Folder of an adapter (PEFT form)." };
    private readonly Option<int?> _tokens = new("--max-new-tokens")
    {
        Description = $"At most so many tokens an answer. Default: generation_config.json, else {tokens}.",
    };
    private readonly Option<float?> _temperature = new("--temperature")
    {
        Description = "0 = greedy. Default: the model's generation_config.json, else 0.",
    };
    private readonly Option<int?> _topK = new("--top-k")
    {
        Description = "Keep the k likeliest; 0 = all. Default: generation_config.json, else 50.",
    };
    private readonly Option<float?> _topP = new("--top-p")
    {
        Description = "Keep this much probability. Default: generation_config.json, else 1.",
    };
    private readonly Option<float?> _minP = new("--min-p")
    {
        Description =
            "Drop tokens below this share of the likeliest one's probability. Default: generation_config.json, else 0.",
    };
    private readonly Option<float?> _penalty = new("--repetition-penalty")
    {
        Description = "Above 1, tokens of the text so far become less likely. Default: generation_config.json, else 1.",
    };
    private readonly Option<int> _seed = new("--seed")
    {
        Description = "Seed of sampling",
        DefaultValueFactory = _ => new SamplingOptions().Seed,
    };
    private readonly Option<string[]> _stop = new("--stop")
    {
        Description = "A string that ends the text. Repeatable.",
        DefaultValueFactory = _ => [],
    };
    private readonly Option<int[]> _stopIds = new("--stop-id")
    {
        Description = "A token id that ends the text. Repeatable.",
        DefaultValueFactory = _ => [],
    };
    private readonly Option<bool> _quantize = new("--load-in-4bit") { Description = "Hold the projections in NF4." };
    private readonly Option<string> _device = new("--device")
    {
        Description = "auto, cpu or cuda",
        DefaultValueFactory = _ => "auto",
    };
    private readonly Option<bool> _json = new("--json")
    {
        Description = "Print results as JSON; progress goes to standard error.",
    };

    /// <summary>Adds model and options to a command.</summary>
    public void AddTo(Command command)
    {
        command.Arguments.Add(_model);
        foreach (
            var o in (Option[])
                [
                    _adapter, _tokens, _temperature, _topK, _topP, _minP, _penalty, _seed, _stop, _stopIds, _quantize,
                    _device, _json]
        )
            command.Options.Add(o);
    }

    /// <summary>The model as given.</summary>
    public string Model(ParseResult p) => p.GetValue(_model)!;

    /// <summary>--json.</summary>
    public bool Json(ParseResult p) => p.GetValue(_json);

    /// <summary>--device, checked.</summary>
    public string Device(ParseResult p) =>
        p.GetValue(_device) is ("auto" or "cpu" or "cuda") and var d
            ? d
            : throw new HeadroomException($"--device {p.GetValue(_device)} is unknown.", "Use auto, cpu or cuda.");

    /// <summary>The model that is asked for: at a path or of a run, with its adapter and storage.</summary>
    public ModelSource Source(ParseResult p, Session session)
    {
        string given = Model(p);
        if (RunPlace.Find(given) is { } run && !p.GetValue(_quantize)) return run.Model(session, p.GetValue(_adapter));
        return new(session.Model(given))
        {
            Adapter = p.GetValue(_adapter),
            Quantization = p.GetValue(_quantize) ? new QuantizationOptions() : null,
        };
    }

    /// <summary>Options of a text, checked, over the model's own.</summary>
    public GenerationOptions Options(ParseResult p, string model)
    {
        var config = GenerationConfig.Beside(model);
        var s = SamplingOptions.Take(config);
        s = s with
        {
            Temperature = p.GetValue(_temperature) ?? s.Temperature,
            TopK = p.GetValue(_topK) ?? s.TopK,
            TopP = p.GetValue(_topP) ?? s.TopP,
            MinP = p.GetValue(_minP) ?? s.MinP,
            RepetitionPenalty = p.GetValue(_penalty) ?? s.RepetitionPenalty,
            Seed = p.GetValue(_seed),
        };
        s.Check();
        foreach (
            var (given, name) in new[]
            {
                (p.GetValue(_topK) != null, "--top-k"), (p.GetValue(_topP) != null, "--top-p"),
                (p.GetValue(_minP) != null, "--min-p"),
            }
        )
            if (given && s.Temperature == 0)
                throw new HeadroomException(
                    $"{name} has no effect at temperature 0 (greedy decoding).",
                    "Give --temperature too, for example 0.7.");
        int most = p.GetValue(_tokens) ?? config.MaxNewTokens ?? tokens;
        if (most < 1) throw new HeadroomException("--max-new-tokens must be at least 1.", "Give a positive number.");
        if (p.GetValue(_stopIds)!.Any(i => i < 0))
            throw new HeadroomException("--stop-id is negative.", "Give a token id.");
        return new GenerationOptions
        {
            MaxNewTokens = most,
            Sampling = s,
            Stop = p.GetValue(_stop)!,
            StopIds = p.GetValue(_stopIds)!,
        };
    }

    /// <summary>Generates to the end or a stop, with each piece printed as it comes.</summary>
    public static void Run(Generation g, Session session, bool print)
    {
        bool more;
        do
        {
            more = g.MoveNext(session.Token);
            if (print) Console.Write(g.Piece);
        }
        while (more);
    }

    /// <summary>Figures of a text for people.</summary>
    public static string Figures(Generation g) => string.Create(CultureInfo.InvariantCulture,
            $"{g.PromptTokens} prompt tokens{(g.ReusedTokens > 0 ? $" ({g.ReusedTokens} reused)" : "")} in "
                + $"{g.PromptSeconds:F2} s, {g.Ids.Count} tokens at {g.TokensPerSecond:F1} tokens/s"
        );

    /// <summary>Ends the command when its text, which was printed as far as it went, was stopped.</summary>
    public static void CheckStopped(Generation g)
    {
        if (g.Finish == FinishReason.Cancelled)
            throw new StoppedException("Run it again; what was printed is the text until then.");
    }

    /// <summary>finish_reason in the words of the field.</summary>
    public static string Finish(Generation g) => g.Finish.ToString().ToLowerInvariant();
}
