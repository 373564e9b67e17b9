using Headroom.Core;
using Headroom.Inference.Bases;
using Headroom.Models;
using Headroom.Training.Recipes;

namespace Headroom.Training.Runs;

/// <summary>Recipe to model settings.</summary>
internal static class RunSettings
{
    /// <summary>Settings of a run on a device.</summary>
    /// <exception cref="HeadroomException">As <see cref="BaseSettings.Choose"/>.</exception>
    public static ModelSettings Choose(Recipe recipe, IWeightSource source, IDevice device) =>
        BaseSettings.Choose(source, device, recipe.Quantization, recipe.Training.Precision) with
        {
            Mode = TrainMode.Adapters,
            Lora = recipe.Lora,
            RecomputeLayers = recipe.Training.GradientCheckpointing == true ? -1 : 0,
            LabelSmoothing = (float)recipe.Training.LabelSmoothingFactor,
            NeftuneNoiseAlpha = (float)recipe.Training.NeftuneNoiseAlpha,
        };
}
