using Headroom.Core;
using Headroom.Formats.Hub;
using Headroom.Inference;
using Headroom.Inference.Bases;
using Headroom.Training.Recipes;

namespace Headroom.Cli;

/// <summary>
/// A run's folder where a model is asked for: base, tokenizer, best adapter and recipe are in it or named by it.
/// </summary>
/// <param name="Folder">The run.</param>
/// <param name="Manifest">What it says of itself.</param>
internal sealed record RunPlace(string Folder, RunManifest Manifest)
{
    /// <summary>Folder of the best adapter.</summary>
    public string Best => Path.Combine(Folder, "best");

    /// <summary>The recipe, as it was understood.</summary>
    public string RecipePath => Path.Combine(Folder, "recipe.yaml");

    /// <summary>The run in a folder, or null where it holds none.</summary>
    /// <exception cref="HeadroomException">It has no adapter yet, or its manifest is damaged.</exception>
    public static RunPlace? Find(string path)
    {
        if (!File.Exists(Path.Combine(path, RunManifest.FileName)) || !File.Exists(Path.Combine(path, "recipe.yaml")))
            return null;
        if (RunManifest.Around(Path.Combine(path, "best")) is not { } run) return null;
        var place = new RunPlace(path, run.Manifest);
        return Directory.Exists(place.Best) ? place : throw new HeadroomException(
            $"The run in {path} has no adapter in best/ yet.",
            "Let it go on: headroom train with its recipe and --resume.");
    }

    /// <summary>The recipe with its task.</summary>
    public Recipe Recipe() => RecipeLoader.Load(RecipePath);

    /// <summary>The model that was trained: the base, with the best adapter over it.</summary>
    /// <param name="session">Has the hub, for a base that is not where it was.</param>
    /// <param name="adapter">Another adapter, or null.</param>
    public ModelSource Model(Session session, string? adapter = null) => new(Base(session))
    {
        TokenizerPath = Manifest.Tokenizer,
        Adapter = adapter ?? Best,
        Quantization = new QuantizationOptions(),
        AsTrained = true,
    };

    private string Base(Session session)
    {
        if (File.Exists(Manifest.ModelPath) || Directory.Exists(Manifest.ModelPath)) return Manifest.ModelPath;
        if (Manifest.ModelHub is { } hub && HubName.IsMeant(hub)) return session.Hub.Model(hub, session.Token);
        throw new HeadroomException(
            $"The base of the run, {Manifest.ModelPath}, is not there any more.",
            "Put it back, or name it: the command takes a model, and the run's adapter by --adapter "
                + $"{Path.Combine(Folder, "best")}.");
    }
}
