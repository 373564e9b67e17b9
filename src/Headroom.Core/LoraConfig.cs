using System.Text.RegularExpressions;
using Headroom.Core.Families;

namespace Headroom.Core;

/// <summary>
/// LoRA adapters by PEFT's names and rules (<c>tuners/lora/config.py</c>): the section of a recipe, what a model is
/// made with, and adapter_config.json. Which modules they sit on, with which rank and alpha, follows
/// <c>tuners_utils.py</c> (check_target_module_exists) and <c>utils/other.py</c> (get_pattern_key); a module path is
/// such as model.layers.0.self_attn.q_proj. The defaults are those of a recipe.
/// </summary>
public sealed record LoraConfig
{
    private const string All = "all-linear";

    /// <summary>As a recipe has it that says nothing.</summary>
    public LoraConfig() { }

    /// <summary>Rank, scaling, dropout and projections; all else at its default.</summary>
    public LoraConfig(int r, float loraAlpha, float loraDropout, IEnumerable<string> targetModules) =>
        (R, LoraAlpha, LoraDropout, TargetModules) = (r, loraAlpha, loraDropout, [.. targetModules]);

    /// <summary>Rank of the adapters.</summary>
    [Identity(Identity.Numbers)]
    [Range(1)]
    [AlsoCalled("lora_r rank lora_rank peft_r")]
    public int R { get; set; } = 16;
    /// <summary>Numerator of the scaling, which is lora_alpha / r.</summary>
    [Identity(Identity.Numbers)]
    [Range(0, OpenLow = true)]
    [AlsoCalled("alpha peft_alpha scale")]
    public float LoraAlpha { get; set; } = 32;
    /// <summary>Dropout on the adapter's input.</summary>
    [Identity(Identity.Numbers)]
    [Range(0, Dropout.MaxP)]
    [AlsoCalled("dropout peft_dropout")]
    public float LoraDropout { get; set; } = 0.05f;
    /// <summary>
    /// Adapted projections: a list of names, or a string: all-linear, or a regex for the whole path of a module.
    /// </summary>
    [Identity(Identity.Numbers)]
    [AlsoCalled("lora_target_modules lora_target_linear lora_target peft_target_modules lora_layers keys")]
    public ModuleNames TargetModules { get; set; } = [.. ModelFamilies.Targets];
    /// <summary>Modules that stay as they are though they are named above; by the same rules.</summary>
    [Identity(Identity.Numbers)]
    public ModuleNames ExcludeModules { get; set; } = [];
    /// <summary>Only these layers (a number or a list); empty = all.</summary>
    [OneOrMore]
    [Identity(Identity.Numbers)]
    [Range(0)]
    [AlsoCalled("peft_layers_to_transform num_layers")]
    public List<int> LayersToTransform { get; set; } = [];
    /// <summary>Names of the list of layers, for layers_to_transform; empty = any.</summary>
    [OneOrMore]
    [Identity(Identity.Numbers)]
    public List<string> LayersPattern { get; set; } = [];
    /// <summary>Rank of modules whose path ends in what a regex matches; the first that does counts.</summary>
    [Identity(Identity.Numbers)]
    [Range(1)]
    public Dictionary<string, int> RankPattern { get; set; } = [];
    /// <summary>lora_alpha, likewise.</summary>
    [Identity(Identity.Numbers)]
    [Range(0, OpenLow = true)]
    public Dictionary<string, float> AlphaPattern { get; set; } = [];
    /// <summary>alpha / sqrt(r) in place of alpha / r.</summary>
    [Identity(Identity.Numbers)]
    [AlsoCalled("peft_use_rslora rslora")]
    public bool UseRslora { get; set; }
    /// <summary>DoRA: a trained magnitude for every row of an adapted weight.</summary>
    [Identity(Identity.Numbers)]
    [AlsoCalled("peft_use_dora dora")]
    public bool UseDora { get; set; }
    /// <summary>
    /// Start of the adapters: true (B = 0), gaussian, false (both random), pissa, pissa_niter_N or loftq; the last
    /// three need a 16- or 32-bit checkpoint.
    /// </summary>
    [Identity(Identity.Numbers)]
    [AlsoCalled("peft_init_lora_weights pissa_init")]
    public string InitLoraWeights
    {
        get;
        set =>
            field = bool.TryParse(value, out bool usual)
                ? usual
                    ? "true"
                    : "false"
                : value;
    } = "true"; // True and False too, as for every other key
    /// <summary>
    /// An adapter (PEFT form) or a run to start from: its rank, alpha and modules are taken, and its base is checked.
    /// It is another run; train --resume goes on with one.
    /// </summary>
    [Identity(Identity.None)]
    [AlsoCalled("lora_model_dir adapter_name_or_path lora_weights peft_model_id resume_adapter")]
    public string? Adapter { get; set; }
    /// <summary>For loftq.</summary>
    public LoftqConfig LoftqConfig { get; set; } = new();
    /// <summary>Modules trained whole, in float32, and saved with the adapter: lm_head, embed_tokens, norms.</summary>
    [Identity(Identity.Numbers)]
    [AlsoCalled("lora_modules_to_save additional_target")]
    public List<string> ModulesToSave { get; set; } = [];

    /// <summary>
    /// ensure_weight_tying: where the table and the head of the base are one, what is trained of them stays one. Else
    /// it is a copy, and they go separate ways, as in PEFT. A field: it is no key of a recipe.
    /// </summary>
    public bool EnsureWeightTying;

    /// <summary>Rank of a module, 0 when it is not adapted, and its scaling.</summary>
    /// <exception cref="HeadroomException">A pattern is no regular expression, or takes too long.</exception>
    public (int Rank, float Scaling) For(string path)
    {
        if (!Adapts(path)) return (0, 0);
        int r = RankOf(path);
        float alpha = AlphaOf(path);
        return (r, UseRslora ? alpha / MathF.Sqrt(r) : alpha / r);
    }

    /// <summary>
    /// True when a module is trained whole (PEFT <c>utils/other.py</c>, _set_trainable: its path ends with an entry).
    /// </summary>
    public bool Saves(string path) => ModulesToSave.Any(m => path.EndsWith(m, StringComparison.Ordinal));

    /// <summary>True when a linear layer of a decoder block is adapted.</summary>
    /// <exception cref="HeadroomException">A pattern is no regular expression, or takes too long.</exception>
    public bool Adapts(string path)
    {
        if (ExcludeModules.Match(path)) return false;
        if (TargetModules.IsPattern)
            return TargetModules[0].Equals(All, StringComparison.OrdinalIgnoreCase) || TargetModules.Match(path);
        if (!TargetModules.Match(path)) return false;
        if (LayersToTransform.Count == 0) return true;
        foreach (
            var (before, place) in LayersPattern.Count == 0
                ? [(@"^.*?\.", "[^.]*")]
                : LayersPattern.Select(p => (@"^.*\.", p))
        )
            if (Match(place, before, @"\.(\d+)\.", path) is { Success: true } m)
                return int.TryParse(m.Groups[1].Value, out int layer) && LayersToTransform.Contains(layer);
        return false;
    }

    /// <summary>The rank that an adapted module has: of the first pattern that matches its end, else r.</summary>
    public int RankOf(string path) => ByPattern(RankPattern, path, R);

    /// <summary>Its alpha, by the same rule; not implied by its rank.</summary>
    public float AlphaOf(string path) => ByPattern(AlphaPattern, path, LoraAlpha);

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

    private static T ByPattern<T>(Dictionary<string, T> patterns, string path, T otherwise)
    {
        foreach (var (key, value) in patterns)
            if (Ending(key, path)) return value;
        return otherwise;
    }

    private static bool Ending(string key, string path) => Match(key, @"^(.*\.)?(", @")\z", path).Success;

    // What a user wrote stands between what makes it a rule. A refusal shows what the user wrote alone, so the parser
    // is asked about that.
    internal static Match Match(string written, string before, string after, string path)
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

/// <summary>LoftQ (PEFT <c>LoftQConfig</c>).</summary>
public sealed record LoftqConfig
{
    /// <summary>Bits of the quantized base: 4.</summary>
    [Identity(Identity.Numbers)]
    public int LoftqBits { get; set; } = 4;
    /// <summary>Rounds of quantization and decomposition.</summary>
    [Identity(Identity.Numbers)]
    [Range(1, 100)]
    public int LoftqIter { get; set; } = 1;
}
