using System.Security.Cryptography;
using Headroom.Core;
using Headroom.Formats.Peft;
using Headroom.Inference;
using Headroom.Training.Recipes;

namespace Headroom.Training.Adapters;

/// <summary>
/// An adapter that a run starts from (lora.adapter). Its rank, alpha and modules are the run's; its file belongs to the
/// run's identity.
/// </summary>
internal static class GivenAdapter
{
    private const string Key = "lora.adapter", Dropout = "lora.lora_dropout";

    /// <summary>Puts what the adapter says of itself into the recipe; nothing where none is named.</summary>
    /// <param name="recipe">Is changed.</param>
    /// <exception cref="HeadroomException">It cannot be read, or a key of the recipe's lora section contradicts
    /// it.</exception>
    public static void Apply(Recipe recipe)
    {
        if (recipe.Lora.Adapter is not { } given) return;
        string folder = Folder(given);
        var adapter = PeftAdapter.Load(folder);
        if (adapter.Initial != null)
            throw new HeadroomException(
                $"The adapter {folder} began as a part of its base ({adapter.Lora.InitLoraWeights}).",
                "Convert it: headroom export with --format adapter writes plain LoRA.");
        var asked = RecipeIdentity.Values(recipe).Where(v => v.Key.StartsWith("lora.", StringComparison.Ordinal));
        var own = adapter.Lora with
        {
            Adapter = folder,
            LoraDropout = recipe.Lora.LoraDropout,
            InitLoraWeights = recipe.Lora.InitLoraWeights,
        };
        var values = RecipeIdentity.Values(new Recipe { Lora = own });
        foreach (var (key, value) in asked)
            if (key is not (Key or Dropout) && values.GetValueOrDefault(key) != value)
                throw new HeadroomException(
                    $"{key} is {HeadroomException.Value(value)}, the adapter {folder} has "
                        + $"{HeadroomException.Value(values.GetValueOrDefault(key) ?? "the default")}.",
                    $"Leave {key} out: a run that starts from an adapter takes it from there.");
        recipe.Lora = own;
    }

    /// <summary>Sets the adapters of an engine to it.</summary>
    /// <exception cref="HeadroomException">It was trained on another base, or has other modules.</exception>
    public static void Start(Engine engine, IWeightSource source, string folder, Action<string> say)
    {
        var adapter = PeftAdapter.Load(folder, say);
        adapter.CheckBase(source, say);
        engine.LoadAdapter(adapter);
        say($"adapters start from {folder}");
    }

    /// <summary>SHA-256 of its weights, lower-case hex.</summary>
    public static string Hash(string folder)
    {
        using var file = File.OpenRead(Path.Combine(folder, "adapter_model.safetensors"));
        return Convert.ToHexStringLower(SHA256.HashData(file));
    }

    // A run's folder stands for its best adapter.
    private static string Folder(string path) =>
        File.Exists(Path.Combine(path, "manifest.json")) && Directory.Exists(Path.Combine(path, "best"))
            ? Path.Combine(path, "best") : path;
}
