using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Core.Families;
using Headroom.Formats.Safetensors;

namespace Headroom.Formats.Peft;

/// <summary>A LoRA adapter folder as PEFT writes it: adapter_config.json and adapter_model.safetensors.</summary>
internal sealed record PeftAdapter
{
    private const string Config = "adapter_config.json", Weights = "adapter_model.safetensors", HashKey = "base_sha256";
    private const string Pissa = "pissa_init", Loftq = "loftq_init"; // folders of what was taken out of the base

    /// <summary>
    /// What follows a module's path in the name of DoRA's magnitude; PEFT leaves ".weight" out there.
    /// </summary>
    public const string MagnitudeSuffix = ".lora_magnitude_vector";

    /// <summary>
    /// What adapter_config.json says. modules_to_save holds, beside what is listed, the paths of further modules whose
    /// whole weight is among <see cref="Tensors"/>, and ensure_weight_tying is true too where tables lie in the file
    /// without being listed, which PEFT writes into the base's own tensor.
    /// </summary>
    public required LoraConfig Lora { get; init; }
    /// <summary>
    /// What the initialization took out of the base (PiSSA, LoftQ of several iterations): the adapter sits on W -
    /// scaling * B A of these pairs. It lies in a folder of its own inside the adapter's, as PEFT's documentation saves
    /// it for the conversion to plain LoRA. Null = the base is as it was.
    /// </summary>
    public PeftAdapter? Initial { get; init; }
    /// <summary>base_model_name_or_path.</summary>
    public string? BaseModel { get; init; }
    /// <summary>SHA-256 of the base weights the adapter belongs to, when recorded.</summary>
    public string? BaseHash { get; init; }
    /// <summary>Tensors by name without PEFT's prefix, such as model.layers.0.self_attn.q_proj.lora_A.weight.</summary>
    public required IReadOnlyDictionary<string, (long[] Shape, float[] Values)> Tensors { get; init; }

    /// <summary>Reads a folder.</summary>
    /// <param name="folder">It holds adapter_config.json and adapter_model.safetensors (F32, F16 or BF16).</param>
    /// <param name="warn">Takes what is odd but does not change the numbers, such as keys that are not known.</param>
    /// <exception cref="HeadroomException">It is a pickle, is empty, holds NaN, does not fit together, or uses an
    /// option that is not supported (named).</exception>
    public static PeftAdapter Load(string folder, Action<string>? warn = null)
    {
        string configPath = Path.Combine(folder, Config), weights = Path.Combine(folder, Weights);
        RegularFile.Check(configPath);
        if (!File.Exists(configPath))
            throw new HeadroomException(
                $"There is no {Config} in {folder}.", "Give the folder that PEFT or Headroom wrote.");
        if (!File.Exists(weights))
            throw new HeadroomException(
                $"There is no {Weights} in "
                    + $"{folder}{(File.Exists(Path.Combine(folder, "adapter_model.bin")) ? ", only a pickled adapter_model.bin" : "")}.",
                "Pickles are not read, they can run code; save the adapter as safetensors (PEFT: save_pretrained with "
                    + "safe_serialization=True)."
            );
        var (config, baseModel) = ReadConfig(folder, configPath, warn);
        using var file = SafetensorsFile.Open(weights);
        var tensors = ReadTensors(file, config);
        if (tensors.Count == 0)
            throw new HeadroomException($"The adapter in {folder} is empty.", "Use a complete adapter.");
        // Without target_modules PEFT falls back on a list per model type; what the file holds is what was targeted.
        if (config.TargetModules.Count == 0)
            config.TargetModules =
            [
                .. tensors.Keys.Select(PeftTensors.Module).OfType<string>().Select(m => m.Split('.')[^1]).Distinct(),
            ];
        CheckPairs(tensors, config);
        CheckSaved(tensors, config);
        string[] unlisted = [.. Unlisted(tensors, config)];
        return new PeftAdapter
        {
            Lora = config with
            {
                ModulesToSave = [.. config.ModulesToSave, .. unlisted],
                EnsureWeightTying =
                    config.EnsureWeightTying || unlisted.Any(IsTable) && !config.ModulesToSave.Any(Names),
            },
            Initial = LoadInitial(folder, config.InitLoraWeights, tensors),
            BaseModel = baseModel,
            BaseHash = file.Metadata.GetValueOrDefault(HashKey),
            Tensors = tensors,
        };
    }

    private static (LoraConfig Lora, string? BaseModel) ReadConfig(
        string folder, string path, Action<string>? warn)
    {
        try
        {
            return PeftConfig.Read(
                JsonNode.Parse(SideFile.ReadText(path)) as JsonObject ?? throw new JsonException("not an object"),
                init => HasInitial(folder, init), warn);
        }
        catch (Exception e) when (Malformed.Is(e))
        {
            throw new HeadroomException(
                $"{Config} in {folder} is damaged: {e.Message.Split('\n')[0]}", "Use a complete adapter.");
        }
    }

    // By name without PEFT's prefix.
    private static Dictionary<string, (long[] Shape, float[] Values)> ReadTensors(
        SafetensorsFile file, LoraConfig config)
    {
        var tensors = new Dictionary<string, (long[] Shape, float[] Values)>();
        foreach (var (name, info) in file.Tensors)
        {
            PeftTensors.Check(name, config.ModulesToSave);
            if (info.DType is not ("F32" or "F16" or "BF16"))
                throw new HeadroomException(
                    $"The adapter's {name} has dtype {info.DType}.", "Save the adapter as F32, BF16 or F16.");
            float[] values = file.ReadF32(name);
            if (values.Any(v => !float.IsFinite(v)))
                throw new HeadroomException(
                    $"The adapter's {name} holds NaN or infinite values.",
                    "The run that wrote it failed; use an earlier checkpoint.");
            tensors[name[PeftTensors.Prefix.Length..]] = (info.Shape, values);
        }
        return tensors;
    }

    private static bool IsTable(string module) => Tables.Contains(module);

    // Paths of the tables and heads of every family: an adapter is read before its base is known.
    private static readonly string[] Tables =
    [
        .. ModelFamilies
            .All.SelectMany(f => f.Rows)
            .Where(r => r.Kind == WeightKind.Embedding)
            .Select(r => r.Path())
            .Distinct(),
    ];

    // An entry of modules_to_save that speaks of the table or the head.
    private static bool Names(string entry) => Tables.Any(t => t.EndsWith(entry, StringComparison.Ordinal));

    // Whole weights that modules_to_save does not list: PEFT writes the table and the head beside the pairs when the
    // vocabulary was changed (save_and_load.py, save_embedding_layers), and loads whatever bears the name of a weight
    // of the base.
    private static IEnumerable<string> Unlisted(
        Dictionary<string, (long[] Shape, float[] Values)> tensors, LoraConfig config) =>
        tensors.Keys.Where(k => PeftTensors.Module(k) == null && !PeftTensors.IsListed(k, config.ModulesToSave))
            .Select(k => k[..^PeftTensors.WeightSuffix.Length]);

    private static void CheckSaved(Dictionary<string, (long[] Shape, float[] Values)> tensors, LoraConfig config)
    {
        foreach (string entry in config.ModulesToSave)
        {
            if (tensors.Keys.Any(k => k.EndsWith(entry + PeftTensors.WeightSuffix, StringComparison.Ordinal))) continue;
            // One table stands for both.
            if (
                config.EnsureWeightTying
                && Names(entry)
                && tensors.Keys.Any(k =>
                    k.EndsWith(PeftTensors.WeightSuffix, StringComparison.Ordinal)
                && IsTable(k[..^PeftTensors.WeightSuffix.Length]))) continue;
            PeftTensors.RefuseHead(entry);
            throw new HeadroomException(
                $"The adapter's modules_to_save names {entry}, but the file holds no weight of it.",
                "The file is incomplete; copy it again.");
        }
    }

    /// <summary>
    /// The adapter as it goes onto a base: where the base's table and head are tied and stay so
    /// (ensure_weight_tying), one tensor stands for both, under the table's name. Itself where nothing is
    /// to be done.
    /// </summary>
    /// <exception cref="HeadroomException">A table has other rows than the base's vocabulary, or the two tables of a
    /// tied base differ.</exception>
    public PeftAdapter Over(ModelConfig config)
    {
        string table = config.TableName(), head = config.HeadName();
        foreach (string name in new[] { table, head })
            if (
                Tensors.TryGetValue(name, out var t)
                && t.Shape is [var rows, var columns]
                && columns == config.HiddenSize
                && rows != config.VocabSize
            )
                throw new HeadroomException(
                    $"The adapter's {name} has {rows} rows where the base has {config.VocabSize}: the base's "
                        + $"vocabulary was resized before the training.",
                    $"Give the base that was trained: with transformers resize_token_embeddings({rows}) and "
                        + $"save_pretrained of base and tokenizer."
                );
        if (!config.TieWordEmbeddings || !Lora.EnsureWeightTying) return this;
        if (!Tensors.TryGetValue(head, out var own)) return this;
        if (
            Tensors.TryGetValue(table, out var both)
            && !(both.Shape.SequenceEqual(own.Shape) && both.Values.AsSpan().SequenceEqual(own.Values))
        )
            throw new HeadroomException(
                $"The base's table and head are one tensor, but the adapter holds two that differ ({table}, {head}).",
                "It was trained over a base with tie_word_embeddings false; give that one.");
        return this with
        {
            Tensors = Tensors
                .Where(t => t.Key != head)
                .Append(KeyValuePair.Create(table, own))
                .DistinctBy(t => t.Key)
                .ToDictionary(),
        };
    }

    /// <summary>
    /// Whether a file in an adapter's folder (its path there, with /) is one that <see cref="Save"/> may have written.
    /// </summary>
    public static bool IsOwnFile(string name) =>
        name[
            (
                name.StartsWith(Pissa + "/", StringComparison.Ordinal) ? Pissa.Length + 1
        : name.StartsWith(Loftq + "/", StringComparison.Ordinal) ? Loftq.Length + 1 : 0)..] is Config or Weights;

    private static string InitialFolder(string folder, string init) =>
        Path.Combine(folder, init.StartsWith("pissa", StringComparison.OrdinalIgnoreCase) ? Pissa : Loftq);

    private static bool HasInitial(string folder, string init) =>
        (init == "loftq" || init.StartsWith("pissa", StringComparison.OrdinalIgnoreCase))
        && File.Exists(Path.Combine(InitialFolder(folder, init), Config));

    private static PeftAdapter? LoadInitial(
        string folder, string init, Dictionary<string, (long[] Shape, float[] Values)> tensors)
    {
        if (!HasInitial(folder, init)) return null;
        string at = InitialFolder(folder, init);
        var initial = Load(at);
        var pairs = tensors
            .Where(t => PeftTensors.Module(t.Key) != null && !t.Key.EndsWith(MagnitudeSuffix, StringComparison.Ordinal))
            .ToList();
        if (
            initial.Tensors.Count != pairs.Count
            || !pairs.All(t => initial.Tensors.TryGetValue(t.Key, out var i) && i.Shape.SequenceEqual(t.Value.Shape))
        )
            throw new HeadroomException(
                $"{at} does not hold the pairs of the adapter.",
                "Its folders do not belong together; use a complete adapter.");
        return initial;
    }

    /// <summary>
    /// An adapter over what its start left of the base as plain LoRA over the base itself, of twice the rank: B A - B0
    /// A0 = [B, -B0] [A; A0], with the scaling kept (PEFT <c>lora/model.py</c>, subtract_mutated_init).
    /// </summary>
    /// <exception cref="InvalidOperationException">It has no <see cref="Initial"/>.</exception>
    public PeftAdapter Converted()
    {
        var initial = Initial ?? throw new InvalidOperationException("nothing to convert");
        float factor = Lora.UseRslora ? MathF.Sqrt(2) : 2;
        var tensors = new Dictionary<string, (long[] Shape, float[] Values)>();
        foreach (var (key, (shape, values)) in Tensors)
        {
            bool isA = key.EndsWith(".lora_A.weight", StringComparison.Ordinal);
            if (!isA && !key.EndsWith(".lora_B.weight", StringComparison.Ordinal))
            {
                tensors[key] = (shape, values);
                continue;
            }
            float[] start = initial.Tensors[key].Values;
            if (isA) tensors[key] = ([2 * shape[0], shape[1]], [.. values, .. start]);
            else
            {
                int r = (int)shape[1];
                var both = new float[2 * values.Length];
                for (int i = 0; i < values.Length; i++)
                {
                    int at = i / r * 2 * r + i % r;
                    both[at] = values[i];
                    both[at + r] = -start[i];
                }
                tensors[key] = ([shape[0], 2 * r], both);
            }
        }
        return this with
        {
            Lora = Lora with
            {
                R = 2 * Lora.R,
                LoraAlpha = Lora.LoraAlpha * factor,
                InitLoraWeights = "true",
                LoftqConfig = new(),
                RankPattern = Lora.RankPattern.ToDictionary(p => p.Key, p => 2 * p.Value),
                AlphaPattern = Lora.AlphaPattern.ToDictionary(p => p.Key, p => p.Value * factor),
            },
            Initial = null,
            Tensors = tensors,
        };
    }

    // Every A has its B, both of the rank that the configuration says; with DoRA a magnitude too, and only then.
    private static void CheckPairs(
        Dictionary<string, (long[] Shape, float[] Values)> tensors, LoraConfig config)
    {
        foreach (string module in tensors.Keys.Select(PeftTensors.Module).OfType<string>().Distinct())
        {
            if (!config.Adapts(module))
                throw new HeadroomException(
                    $"The adapter holds weights for {module}, which its target_modules do not name.",
                    "Its two files do not belong together; use a complete adapter.");
            int rank = config.RankOf(module);
            foreach (char ab in "AB")
            {
                string name = $"{module}.lora_{ab}.weight";
                if (!tensors.TryGetValue(name, out var t))
                    throw new HeadroomException(
                        $"The adapter has no {name}.", "The file is incomplete; copy it again.");
                if (t.Shape.Length != 2 || t.Shape[ab == 'A' ? 0 : 1] != rank)
                    throw new HeadroomException(
                        $"The adapter's {name} is [{string.Join(", ", t.Shape)}], which does not fit the rank {rank}.",
                        "Its two files do not belong together; use a complete adapter.");
            }
            string magnitude = module + MagnitudeSuffix;
            bool has = tensors.TryGetValue(magnitude, out var m);
            if (has && !config.UseDora)
                throw new HeadroomException(
                    $"The adapter holds {magnitude}, but its use_dora is false.",
                    "Its two files do not belong together; use a complete adapter.");
            if (!has && config.UseDora)
                throw new HeadroomException(
                    $"The adapter has no {magnitude}.", "The file is incomplete; copy it again.");
            if (has && (m.Shape.Length != 1 || m.Shape[0] != tensors[$"{module}.lora_B.weight"].Shape[0]))
                throw new HeadroomException(
                    $"The adapter's {magnitude} is [{string.Join(", ", m.Shape)}], which does not fit its lora_B.",
                    "Its two files do not belong together; use a complete adapter.");
        }
    }

    /// <summary>
    /// Refuses a base whose weights are not those that the adapter was trained on; warns when the adapter does not say.
    /// </summary>
    /// <exception cref="HeadroomException">The recorded hash is another one.</exception>
    public void CheckBase(IWeightSource source, Action<string>? warn = null)
    {
        if (BaseHash == null)
            warn?.Invoke(
                $"warning: the adapter does not record the hash of its base ({BaseModel ?? "not named"}); that this "
                    + $"is the right base is not checked"
            );
        else if (BaseHash != source.Hash)
            throw new HeadroomException(
                "The adapter was trained on another base (its hash differs).",
                $"Give the base it belongs to: {BaseModel ?? "unknown"}.");
    }

    /// <summary>
    /// Writes the folder as PEFT does (keys sorted, indent 2, inference_mode true); each file is whole or not there.
    /// </summary>
    public void Save(string folder)
    {
        FileLayer.Current.MakeFolder(folder);
        Initial?.Save(InitialFolder(folder, Lora.InitLoraWeights));
        var metadata = new Dictionary<string, string> { ["format"] = "pt" };
        if (BaseHash != null) metadata[HashKey] = BaseHash;
        SafetensorsWriter.WriteF32(
            Path.Combine(folder, Weights),
            Tensors.Select(t => (PeftTensors.Prefix + t.Key, t.Value.Shape, t.Value.Values)), metadata);
        AtomicFile.WriteText(
            Path.Combine(folder, Config),
            PeftConfig.Write(Lora, BaseModel).ToJsonString(
                new JsonSerializerOptions
                {
                    WriteIndented = true,
                    Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
                }
            ) + "\n"
        );
    }
}
