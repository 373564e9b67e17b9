using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;

namespace Headroom.Formats.HuggingFace;

/// <summary>
/// generation_config.json: how a model's authors sample from it (transformers <c>GenerationConfig</c>). Null = not
/// said.
/// </summary>
public sealed record GenerationConfig
{
    /// <summary>do_sample; absent or false is greedy decoding.</summary>
    public bool DoSample { get; init; }
    /// <summary>temperature.</summary>
    public float? Temperature { get; init; }
    /// <summary>top_k.</summary>
    public int? TopK { get; init; }
    /// <summary>top_p.</summary>
    public float? TopP { get; init; }
    /// <summary>min_p.</summary>
    public float? MinP { get; init; }
    /// <summary>repetition_penalty.</summary>
    public float? RepetitionPenalty { get; init; }
    /// <summary>max_new_tokens.</summary>
    public int? MaxNewTokens { get; init; }
    /// <summary>eos_token_id, one or more.</summary>
    public int[] EosTokenIds { get; init; } = [];

    /// <summary>
    /// Settings that change what transformers writes and that are not built, as key and value; empty where the file
    /// holds none.
    /// </summary>
    public IReadOnlyList<string> NotFollowed { get; init; } = [];

    // Keys of transformers' GenerationConfig beside the built ones, with the value at which they change nothing; null
    // and empty lists change nothing either.
    private static readonly (string Key, double Neutral)[] Others =
    [
        ("num_beams", 1), ("num_beam_groups", 1), ("no_repeat_ngram_size", 0), ("typical_p", 1), ("epsilon_cutoff", 0),
        ("eta_cutoff", 0), ("penalty_alpha", 0), ("guidance_scale", 1), ("min_length", 0), ("min_new_tokens", 0),
        ("diversity_penalty", 0), ("suppress_tokens", 0), ("begin_suppress_tokens", 0), ("bad_words_ids", 0),
        ("force_words_ids", 0), ("sequence_bias", 0), ("exponential_decay_length_penalty", 0), ("stop_strings", 0),
        ("forced_bos_token_id", -1), ("forced_eos_token_id", -1), ("watermarking_config", 0), ("dola_layers", 0)];

    private static bool IsNeutral(JsonNode? value, double neutral) => value switch
    {
        null => true,
        JsonArray list => list.Count == 0,
        JsonValue v when v.TryGetValue(out double number) => number == neutral,
        _ => false,
    };

    /// <summary>Reads the file beside a model (a folder, or a file in it); all absent when there is none.</summary>
    /// <exception cref="HeadroomException">The file is damaged.</exception>
    public static GenerationConfig Beside(string model)
    {
        string? folder = Directory.Exists(model) ? model : Path.GetDirectoryName(Path.GetFullPath(model));
        string file = Path.Combine(folder ?? ".", "generation_config.json");
        RegularFile.Check(file);
        if (!File.Exists(file)) return new GenerationConfig();
        try
        {
            var json =
                JsonNode.Parse(SideFile.ReadText(file)) as JsonObject ?? throw new JsonException("not an object");
            return new GenerationConfig
            {
                DoSample = json.Flag("do_sample") ?? false,
                Temperature = (float?)json.Number("temperature"),
                TopK = json.Whole("top_k"),
                TopP = (float?)json.Number("top_p"),
                MinP = (float?)json.Number("min_p"),
                RepetitionPenalty = (float?)json.Number("repetition_penalty"),
                MaxNewTokens = json.Whole("max_new_tokens"),
                EosTokenIds = TokenIds.Many(json, "eos_token_id"),
                NotFollowed =
                [
                    .. Others
                        .Where(o => !IsNeutral(json[o.Key], o.Neutral))
                        .Select(o => $"{o.Key} {HeadroomException.Value(json[o.Key]!.ToJsonString())}"),
                ],
            };
        }
        catch (Exception e) when (Malformed.Is(e))
        {
            throw new HeadroomException(
                $"{file} is damaged: {e.Message.Split('\n')[0]}", "Use the model's original file, or delete it.");
        }
    }
}
