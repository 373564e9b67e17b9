using Headroom.Core;
using Headroom.Training;

namespace Headroom.Tests.Recipes;

public class RecipeLoaderTests
{
    [Fact]
    public void ReadsEverySection()
    {
        var r = RecipeLoader.Parse("""
            name: x
            models:
              - path: a.gguf
            quantization: { load_in_4bit: false, bnb_4bit_use_double_quant: false }
            lora: { r: 4, lora_alpha: 8, target_modules: [q_proj, v_proj], use_rslora: true }
            training: { per_device_train_batch_size: 2, learning_rate: 5e-4, adam_beta1: 0.8, gradient_checkpointing: true }
            task: { template: "A {text} B", labels: { "0": " no", "1": " yes" } }
            """, ["training.max_steps=7", "lora.r=9"]);
        Assert.Equal("a.gguf", r.Models[0].Path);
        Assert.False(r.Quantization.LoadIn4bit || r.Quantization.Bnb4bitUseDoubleQuant != false);
        Assert.Equal((9, 8f, 2, true), (r.Lora.R, r.Lora.LoraAlpha, r.Lora.TargetModules.Count, r.Lora.UseRslora));
        Assert.Equal((2, 5e-4, 0.8, true, 7), (r.Training.PerDeviceTrainBatchSize, r.Training.LearningRate, r.Training.AdamBeta1, r.Training.GradientCheckpointing!.Value, r.Training.MaxSteps));
        Assert.Equal(" yes", r.Task.Labels["1"]);
    }

    [Theory]
    [InlineData("training: { learning_rat: 1 }", "learning_rate")]
    [InlineData("trainin: { }", "training")]
    [InlineData("lora: { rank: 3 }", "r")]
    public void UnknownKeyNamesTheNearest(string yaml, string nearest)
    {
        var e = Assert.Throws<HeadroomException>(() => RecipeLoader.Parse(yaml));
        Assert.Contains("line 1", e.Message);
        Assert.Contains($"'{nearest}'", e.ToDo);
        Assert.Equal(2, e.ExitCode);
    }

    [Theory]
    [InlineData("quantization: { load_in_4bit: true, load_in_8bit: true }")]
    [InlineData("training: { learning_rate: fast }")]
    [InlineData("training: { precision: fp8 }")]
    [InlineData("task: { template: nothing }")]
    [InlineData("name: [")]
    [InlineData("training: 3")]
    public void BadValuesAreRefused(string yaml) => Assert.Equal(2, Assert.Throws<HeadroomException>(() => RecipeLoader.Parse(yaml)).ExitCode);

    [Fact]
    public void HashFollowsValues() => Assert.NotEqual(RecipeLoader.Hash(new Recipe()), RecipeLoader.Hash(RecipeLoader.Parse("lora: { r: 17 }")));
}
