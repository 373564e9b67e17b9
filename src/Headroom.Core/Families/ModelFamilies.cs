namespace Headroom.Core.Families;

/// <summary>The families that can be read. A new one is a line here.</summary>
internal static class ModelFamilies
{
    /// <summary>
    /// Every family. Of those that share an architecture of GGUF the first is what such a file is read as.
    /// </summary>
    public static IReadOnlyList<ModelFamily> All { get; } =
        [LlamaFamily.Family, MistralFamily.Family, Qwen2Family.Family, Qwen3Family.Family];

    /// <summary>The family of a model_type.</summary>
    /// <exception cref="HeadroomException">There is none.</exception>
    public static ModelFamily Get(string modelType) => All.FirstOrDefault(f => f.ModelType == modelType)
        ?? throw new HeadroomException($"The model_type {modelType} is not supported.", SupportedArchitectures);

    /// <summary>The family of an entry of architectures, or null.</summary>
    public static ModelFamily? OfArchitecture(string architecture) =>
        All.FirstOrDefault(f => f.Architecture == architecture);

    /// <summary>The family that a GGUF file of an architecture is read as, or null.</summary>
    public static ModelFamily? OfGguf(string architecture) =>
        All.FirstOrDefault(f => f.GgufArchitecture == architecture);

    /// <summary>What is supported, in the words of config.json.</summary>
    public static string SupportedArchitectures { get; } =
        $"Supported: {string.Join(", ", All.Select(f => $"{f.Architecture} ({f.Models})"))}.";

    /// <summary>What is supported, in the words of GGUF.</summary>
    public static string SupportedGguf { get; } = "Supported: " + string.Join(", ", All.GroupBy(f => f.GgufArchitecture)
        .Select(g => $"{g.Key} ({string.Join(", ", g.Select(f => f.Models))})")) + ".";

    /// <summary>
    /// Names of the modules that a LoRA pair can sit on, of all families: what a recipe is checked against before its
    /// model is known, and its target_modules where it names none.
    /// </summary>
    public static IReadOnlyList<string> Targets { get; } = [.. All.SelectMany(f => f.Targets).Distinct()];

    /// <summary>Last parts of the paths of tables and heads, of all families.</summary>
    public static IReadOnlyList<string> Tables { get; } = Leaves(WeightKind.Embedding);

    /// <summary>Last parts of the paths of norms, of all families.</summary>
    public static IReadOnlyList<string> Norms { get; } = Leaves(WeightKind.Norm);

    private static IReadOnlyList<string> Leaves(WeightKind kind) =>
        [.. All.SelectMany(f => f.Rows).Where(r => r.Kind == kind).Select(r => r.Leaf).Distinct()];
}
