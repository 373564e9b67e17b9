using Headroom.Core;
using Headroom.Core.Families;

namespace Headroom.Formats.Peft;

/// <summary>
/// Names of tensors in an adapter's file (PEFT <c>utils/save_and_load.py</c>): what each is, and why one cannot be
/// read.
/// </summary>
internal static class PeftTensors
{
    /// <summary>What PEFT puts before the path of every module.</summary>
    public const string Prefix = "base_model.model.";

    /// <summary>What follows the path of a module in the name of its weight.</summary>
    public const string WeightSuffix = ".weight";

    private const string WholeTable =
        "Train without it in target_modules (modules_to_save trains it whole), or merge it with PEFT "
            + "(merge_and_unload) and give the merged model.";

    // Heads of other tasks than language modelling (PEFT peft_model.py: classifier_module_names, qa_module_names).
    private static readonly string[] OtherHeads = ["score", "classifier", "qa_outputs"];

    // Whole weights of the base that an adapter may bring without listing them in modules_to_save.
    private static readonly string[] Whole = [.. ModelFamilies.Tables, .. ModelFamilies.Norms];

    /// <summary>The module's path of a pair's or a magnitude's tensor, or null.</summary>
    public static string? Module(string name)
    {
        foreach (string suffix in new[] { ".lora_A.weight", ".lora_B.weight", PeftAdapter.MagnitudeSuffix })
            if (name.EndsWith(suffix, StringComparison.Ordinal)) return name[..^suffix.Length];
        return null;
    }

    /// <summary>True for the whole weight of a module that modules_to_save names.</summary>
    public static bool IsListed(string name, IReadOnlyList<string> modulesToSave) =>
        name.EndsWith(WeightSuffix, StringComparison.Ordinal)
        && modulesToSave.Any(m => m.Length > 0 && name.EndsWith(m + WeightSuffix, StringComparison.Ordinal));

    /// <summary>Throws for a tensor that cannot be read, with the reason that its name tells.</summary>
    /// <exception cref="HeadroomException">It is neither of a pair nor a magnitude nor a whole weight that a language
    /// model has.</exception>
    public static void Check(string name, IReadOnlyList<string> modulesToSave)
    {
        string[] path = name.Split('.');
        if (path is [.., "lora_embedding_A" or "lora_embedding_B"])
            throw new HeadroomException(
                $"The adapter holds {name}: LoRA of the embedding table, which is not supported.", WholeTable);
        if (path is [.., "lora_B", "bias"])
            throw new HeadroomException(
                $"The adapter holds {name}: a bias of LoRA (lora_bias), which is not supported.",
                "Train it without lora_bias.");
        if (path is [.., "bias"])
            throw new HeadroomException(
                $"The adapter holds {name}: a bias of the base that was trained, which is not supported.",
                "Train it with bias: none.");
        if (name.StartsWith(Prefix, StringComparison.Ordinal))
        {
            string? module = Module(name);
            if (module != null && ModelFamilies.Tables.Contains(module.Split('.')[^1]))
                throw new HeadroomException(
                    $"The adapter holds {name}: LoRA of the output head or the table, which is not supported.",
                    WholeTable);
            if (module != null) return;
            if (path is [.., var leaf, "weight"]) RefuseHead(leaf);
            if (IsListed(name, modulesToSave) || path is [.., var whole, "weight"] && Whole.Contains(whole)) return;
        }
        throw new HeadroomException(
            $"The adapter holds {name}, which is no lora_A or lora_B weight, no magnitude and not in modules_to_save.",
            "Only LoRA pairs and DoRA magnitudes of linear layers can be read, and whole weights of the table, the "
                + "head and norms."
        );
    }

    /// <summary>Throws where a module is the head of a classifier.</summary>
    /// <exception cref="HeadroomException">It is one.</exception>
    public static void RefuseHead(string module)
    {
        string leaf = module.Split('.')[^1];
        if (!OtherHeads.Contains(leaf)) return;
        throw new HeadroomException(
            $"The adapter is of another task than language modelling: it has a classification head ({leaf}).",
            "Only adapters of causal language models (task_type CAUSAL_LM) can be read: a classifier's head has no "
                + "place in one."
        );
    }
}
