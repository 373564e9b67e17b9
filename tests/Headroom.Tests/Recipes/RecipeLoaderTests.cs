using Headroom.Core;
using Headroom.Training.Recipes;

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
            training: { per_device_train_batch_size: 2, learning_rate: 5e-4, adam_beta1: 0.8, gradient_checkpointing: true, cuda_graphs: false }
            task: { template: "A {text} B", labels: { "0": " no", "1": " yes" } }
            """, ["training.max_steps=7", "lora.r=9"]);
        Assert.Equal("a.gguf", r.Models[0].Path);
        Assert.False(r.Quantization.LoadIn4bit || r.Quantization.Bnb4bitUseDoubleQuant != false);
        Assert.Equal((9, 8f, 2, true), (r.Lora.R, r.Lora.LoraAlpha, r.Lora.TargetModules.Count, r.Lora.UseRslora));
        Assert.Equal(
            (2, 5e-4, 0.8, true, 7),
            (
                r.Training.PerDeviceTrainBatchSize, r.Training.LearningRate, r.Training.AdamBeta1,
                r.Training.GradientCheckpointing!.Value, r.Training.MaxSteps)
        );
        Assert.False(r.Training.CudaGraphs);
        Assert.Equal(" yes", r.Task.Labels["1"]);
    }

    [Theory]
    [InlineData("True", "true")]
    [InlineData("FALSE", "false")]
    [InlineData("pissa", "pissa")]
    public void AStartIsWrittenLikeEveryOtherFlag(string written, string start) =>
        Assert.Equal(start, RecipeLoader.Parse($"lora: {{ init_lora_weights: {written} }}").Lora.InitLoraWeights);

    /// <summary>The forms of PEFT's LoraConfig, as they land in the settings of a model of four layers.</summary>
    [Theory]
    [InlineData("target_modules: all-linear", 28)]
    [InlineData("target_modules: ALL-LINEAR, exclude_modules: [k_proj, mlp.up_proj]", 20)]
    [InlineData("target_modules: '.*\\.(q|v)_proj'", 8)]
    [InlineData("target_modules: 'model\\.layers\\.[12]\\.mlp\\..*'", 6)]
    [InlineData("target_modules: [q_proj, v_proj], layers_to_transform: [0, 3]", 4)]
    [InlineData("target_modules: [q_proj, v_proj], layers_to_transform: 2, layers_pattern: layers", 2)]
    [InlineData("target_modules: [q_proj, v_proj], layers_to_transform: 2, layers_pattern: blocks", 0)]
    [InlineData("exclude_modules: '.*mlp.*'", 16)]
    [InlineData("target_modules: [q_proj]", 4)]
    public void TargetsAsPeftTakesThem(string lora, int modules)
    {
        var recipe = RecipeLoader.Parse(
            $"lora: {{ {lora}, r: 6, rank_pattern: {{ q_proj: 3 }}, alpha_pattern: {{ 'layers.1.*': 12 }}, "
                + $"lora_alpha: 24 }}"
        );
        string[] layer = ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down"];
        string[] all = [.. Enumerable.Range(0, 4).SelectMany(i => layer.Select(p => $"model.layers.{i}.{p}_proj"))];
        foreach (var options in new[] { recipe.Lora, RecipeLoader.Copy(recipe).Lora })
        {
            Assert.Equal(modules, all.Count(p => options.For(p).Rank > 0));
            foreach (string path in all)
                if (options.For(path) is { Rank: > 0 } s)
                    Assert.Equal(
                        (path.EndsWith("q_proj") ? 3 : 6, (path.Contains("layers.1.") ? 12f : 24f) / s.Rank), s);
        }
        Assert.Equal(RecipeIdentity.Hash(recipe), RecipeIdentity.Hash(RecipeLoader.Copy(recipe)));
        Assert.NotEqual(
            RecipeIdentity.Hash(RecipeLoader.Parse($"lora: {{ {lora} }}")),
            RecipeIdentity.Hash(RecipeLoader.Parse("lora: { target_modules: [o_proj] }")));
    }

    [Theory]
    [InlineData("training: { learning_rat: 1 }", "Did you mean 'learning_rate'?")]
    [InlineData("trainin: { }", "Did you mean 'training'?")]
    [InlineData("lora: { rank: 3 }", "Here it is called lora.r.")]
    [InlineData("learning_rate: 1e-4", "It belongs elsewhere: 'training.learning_rate'.")]
    [InlineData("training: { max_seq_length: 8 }", "It belongs elsewhere: 'task.max_seq_length'.")]
    [InlineData("learning_rat: 1e-4", "Did you mean 'training.learning_rate'?")]
    [InlineData(
        "training: { optim: adamw_8bit }",
        "That is always so: AdamW with float32 states, all tensors in one launch. Leave the key out.")]
    [InlineData("deepspeed: ds.json", "Headroom has nothing for it: it trains on one device. Leave the key out.")]
    [InlineData(
        "training: { resume_from_checkpoint: true }",
        "It is no key of a recipe: train --resume goes on with a stopped run.")]
    [InlineData(
        "training: { loraplus_lr_embedding: 1e-6 }",
        "Headroom has nothing for it: adapters never sit on embeddings. Leave the key out.")]
    [InlineData(
        "training: { cosine_min_lr_ratio: 0.1 }",
        "It is no key of a recipe: training.lr_scheduler_type cosine_with_min_lr takes min_lr_rate in "
            + "training.lr_scheduler_kwargs.")]
    [InlineData("training: { Learning_Rate: 1 }", "Did you mean 'learning_rate'?")]
    [InlineData(
        "quantization: { zzz: 1 }",
        "The keys there are load_in_4bit, load_in_8bit, bnb_4bit_quant_type, bnb_4bit_use_double_quant, cache.")]
    public void UnknownKeySaysWhatToDo(string yaml, string advice)
    {
        var e = Assert.Throws<HeadroomException>(() => RecipeLoader.Parse(yaml));
        Assert.Contains("line 1", e.Message);
        Assert.Equal(advice, e.ToDo);
        Assert.Equal(2, e.ExitCode);
    }

    /// <summary>
    /// What a foreign name is said to be called here is a key, and no foreign name hides one of ours.
    /// </summary>
    [Fact]
    public void ForeignNamesLeadToKeys()
    {
        Assert.All(ForeignKeys.All, f =>
            Assert.False(RecipeLoader.AllKeys.Any(k => k == f.Name && !k.Contains('.')), f.Name)
        );
        foreach (var (name, meaning) in ForeignKeys.All.Where(f => !f.Meaning.Contains(": ", StringComparison.Ordinal)))
            Assert.All(meaning.Split(" and "), key => Assert.Contains(key, RecipeLoader.AllKeys));
        Assert.Contains(
            "Here it is called models: [{ path: ... }].",
            Assert.Throws<HeadroomException>(() => RecipeLoader.Parse("base_model: x")).ToDo);
        Assert.True(ForeignKeys.All.Count() > 250);
    }

    [Theory]
    [InlineData("quantization: { load_in_4bit: true, load_in_8bit: true }")]
    [InlineData("training: { learning_rate: fast }")]
    [InlineData("training: { precision: fp8 }")]
    [InlineData("task: { template: nothing }")]
    [InlineData("name: [")]
    [InlineData("training: 3")]
    public void BadValuesAreRefused(string yaml) =>
        Assert.Equal(2, Assert.Throws<HeadroomException>(() => RecipeLoader.Parse(yaml)).ExitCode);

    public static TheoryData<string, string> BadSets() => new()
    {
            { "training.eval_strategy=wavy", "eval_strategy" },
            { "training.save_strategy=best", "save_strategy" },
            { "training.metric_for_best_model=bleu", "metric_for_best_model" },
            { "training.lr_scheduler_type=null", "null" },
            { "training.precision=int3", "precision" },
            { "training.precision=FP32", "training.precision 'FP32' is unknown" },
            { "training.precision=1", "training.precision '1' is unknown" },
            { "data.on_duplicate=ignore", "data.on_duplicate 'ignore' is unknown" },
            { "task.loss=prompt", "task.loss 'prompt' is unknown" },
            { "training.train_sampling_strategy=none", "train_sampling_strategy" },
            { "quantization.bnb_4bit_quant_type=fp4", "fp4" },
            { "device=tpu", "tpu" },
            { "task.loss=some", "loss" },
            { "data.on_duplicate=maybe", "on_duplicate" },
            { "lora.target_modules=[]", "empty" },
            { "lora.target_modules=[q_proj, q_projj]", "q_projj" },
            { "lora.target_modules=[null]", "null" },
            { "lora.target_modules=all", "list" },
            { "lora.target_modules=q_proj", "regex" },
            { "lora.target_modules='.*(q_proj'", "cannot be used" },
            { "lora.exclude_modules='*'", "cannot be used" },
            { "lora.exclude_modules=[q_pro]", "q_pro" },
            { "lora.layers_to_transform=-1", "layers_to_transform" },
            { "lora.layers_pattern=layers", "layers_pattern" },
            { "lora.rank_pattern={q_proj: 0}", "rank_pattern" },
            { "lora.alpha_pattern={q_proj: x}", "alpha_pattern" },
            { "lora.rank_pattern={'(': 4}", "cannot be used" },
            { "lora.rank_pattern={'[': 4}", "The module pattern [ cannot be used: Invalid pattern '[' at" },
            { "lora.alpha_pattern={'a)(b(': 4}", "The module pattern a)(b( cannot" },
            { "lora.r=0", "lora.r" },
            { "lora.lora_alpha=0", "lora_alpha" },
            { "lora.lora_alpha=nan", "nan" },
            { "lora.lora_alpha=1e39", "1e39" },
            { "lora.lora_dropout=1", "lora_dropout" },
            { "training.max_steps=0", "max_steps" },
            { "training.cuda_graphs=maybe", "cuda_graphs" },
            { "training.expanded_weights=much", "size" },
            { "training.max_steps=-5", "max_steps" },
            { "training.save_steps=0", "save_steps" },
            { "training.eval_steps=0", "eval_steps" },
            { "training.logging_steps=-1", "logging_steps" },
            { "training.save_total_limit=-1", "save_total_limit" },
            { "training.warmup_ratio=2", "warmup_ratio" },
            { "training.warmup_steps=-3", "warmup_steps" },
            { "training.adam_beta1=1.5", "adam_beta1" },
            { "training.adam_beta2=1", "adam_beta2" },
            { "training.adam_epsilon=0", "adam_epsilon" },
            { "training.weight_decay=-1", "weight_decay" },
            { "training.max_grad_norm=-1", "max_grad_norm" },
            { "training.learning_rate=1e400", "1e400" },
            { "training.learning_rate=0", "learning_rate" },
            { "training.learning_rate=1,5", "1,5" },
            { "training.num_train_epochs=0", "num_train_epochs" },
            { "training.num_train_epochs=1e300", "num_train_epochs" },
            { "training.seed=1e30", "seed" },
            { "training.seed=0x10", "seed" },
            { "seeds=[1, 1]", "twice" },
            { "training.per_device_train_batch_size=0", "per_device_train_batch_size" },
            { "training.gradient_accumulation_steps=-1", "gradient_accumulation_steps" },
            { "data.validation_fraction=-1", "validation_fraction" },
            { "data.validation_fraction=1", "validation_fraction" },
            { "data.max_train_rows=-1", "max_train_rows" },
            { "data.text_field=null", "text_field" },
            { "data.train=\"a\\0b\"", "control" },
            { "task.template=null", "template" },
            { "task.template=none", "{text}" },
            { "task.labels={\"0\": a, \"0\": b}", "Duplicate" },
            { "task.labels={\"0\": null}", "null" },
            { "task.replace={\"\": x}", "empty" },
            { "task.max_seq_length=0", "max_seq_length" },
            { "name=", "name" },
            { "name=..", "name" },
            { "name=a/b", "name" },
            { "name=\"a\\nb\"", "name" },
            { "models=[{path: null}]", "null" },
            { "models=[{path: x, name: ..}]", "model name" },
            { "models=[x]", "keys" },
            { "vram=lots", "size" },
            { "vram=24", "without a unit" },
            { "vram=1e400GiB", "size" },
            { "vram=1,5GiB", "size" },
            { "training.seed=[1", "--set" },
            { "training.seed=*x", "--set" },
            { "training.seed.x=1", "no keys" },
            { "models.path=1", "no keys" },
            { "training", "no value" },
            { "=1", "no key" },
            { "training.=1", "unknown key" },
    };

    [Theory, MemberData(nameof(BadSets))]
    public void BadOverridesAreRefusedInTwoLines(string set, string says)
    {
        var e = Assert.Throws<HeadroomException>(() => RecipeLoader.Parse("models: [{ path: a.gguf }]", [set]));
        Assert.Equal(2, e.ExitCode);
        Assert.Contains(says, e.Message, StringComparison.OrdinalIgnoreCase);
        Assert.All(new[] { e.Message, e.ToDo }, line =>
            Assert.True(!line.Contains('\n') && line[^1] is '.' or '?', line)
        );
    }

    [Theory]
    [InlineData("- a\n- b", "map")]
    [InlineData("hello", "map")]
    [InlineData("name: a\nname: b", "Duplicate")]
    [InlineData("? [a, b]\n: c", "key")]
    [InlineData("lora: { ? { a: b } : 3 }", "lora")]
    [InlineData("name: a\n---\nname: b", "second")]
    [InlineData("lora: *nope", "nope")]
    [InlineData("lora: &l { r: *l }", "lora.r")]
    [InlineData("lora: [r]", "'lora'")]
    [InlineData("training:\n\tseed: 1", "line 1")]
    public void BadDocumentsAreRefused(string yaml, string says)
    {
        var e = Assert.Throws<HeadroomException>(() => RecipeLoader.Parse(yaml));
        Assert.Equal(2, e.ExitCode);
        Assert.Contains(says, e.Message, StringComparison.Ordinal);
    }

    [Theory, InlineData("["), InlineData("{a: "), InlineData("- ")]
    public void DeepNestingIsRefusedAndDoesNotEndTheProcess(string open) =>
        Assert.Contains(
            "nesting",
            Assert
                .Throws<HeadroomException>(() => RecipeLoader.Parse(string.Concat(Enumerable.Repeat(open, 50_000))))
                .Message,
            StringComparison.Ordinal
        );

    [Fact]
    public void EmptyIsNoValueWhereNoneIsAllowed()
    {
        var r = RecipeLoader.Parse(
            "vram:\ndata: { validation: null }\ntask: { labels: { \"0\": \"null\", \"1\": \" b\" } }");
        Assert.Null(r.Vram);
        Assert.Null(r.Data.Validation);
        Assert.Equal("null", r.Task.Labels["0"]); // quoted, it is a word
    }

    [Theory]
    [InlineData(new byte[] { (byte)'n', (byte)':', 0xE9 }, "UTF-8")]
    [InlineData(null, "larger")]
    public void FilesThatAreNoTextAreRefused(byte[]? bytes, string says)
    {
        string path = Path.GetTempFileName();
        try
        {
            File.WriteAllBytes(path, bytes ?? new byte[2 << 20]);
            Assert.Contains(
                says, Assert.Throws<HeadroomException>(() => RecipeLoader.Load(path)).Message, StringComparison.Ordinal
            );
        }
        finally { File.Delete(path); }
    }

    [Fact]
    public void HashFollowsValues()
    {
        Assert.NotEqual(RecipeIdentity.Hash(new Recipe()), RecipeIdentity.Hash(RecipeLoader.Parse("lora: { r: 17 }")));
        var named = RecipeLoader.Parse("name: other");
        // a renamed folder holds the same run
        Assert.Equal(RecipeIdentity.Hash(new Recipe()), RecipeIdentity.Hash(named));
        Assert.Equal("other", RecipeLoader.Copy(named).Name);
        var roomy = RecipeLoader.Parse("training: { expanded_weights: 4GiB }");
        Assert.Equal(RecipeIdentity.Hash(new Recipe()), RecipeIdentity.Hash(roomy)); // it changes no result
        Assert.Equal("4GiB", RecipeLoader.Copy(roomy).Training.ExpandedWeights);
    }
}
