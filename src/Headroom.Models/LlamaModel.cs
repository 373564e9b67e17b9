using Headroom.Core;
using Headroom.Core.Families;

namespace Headroom.Models;

/// <summary>
/// A decoder of Llama's kind (<see cref="ModelFamilies"/> by configuration; transformers <c>modeling_llama.py</c>),
/// written once for every device: it calls named ops on buffers that <see cref="IMemory"/> hands out and owns nothing.
/// Run over planning ops and memory, the same calls yield the plan.
/// </summary>
internal sealed partial class LlamaModel
{
    private readonly IOps _ops;
    private readonly IMemory _memory;
    private readonly List<TrainedParameter> _trained = [];
    private readonly Layer[] _layers;
    private readonly Saved[] _saved;
    private readonly Tensor _finalNorm, _gradFinalNorm, _gradEmbedding, _gradHead;
    private readonly LinearWeight _embedding, _head;
    private readonly float _ropeFactor;
    private readonly string _embeddingPath, _headPath;

    private const int ExpandedSlack = 4096; // a weight may go through in pieces, each aligned

    /// <summary>Reserves every static buffer of the model through <paramref name="memory"/>.</summary>
    public LlamaModel(ModelConfig config, ModelSettings settings, IOps ops, IMemory memory)
    {
        Config = config;
        Settings = settings;
        _ops = ops;
        _memory = memory;
        (_embeddingPath, _headPath) = (
            config.Family[WeightRole.Embedding].Path(), config.Family[WeightRole.Head].Path());
        CheckSaves(settings.Lora?.ModulesToSave ?? []);
        _embedding = Table(_embeddingPath, _embeddingPath, out _gradEmbedding);
        _layers = new Layer[config.NumHiddenLayers];
        for (int i = 0; i < _layers.Length; i++) _layers[i] = new Layer(this, i);
        if (settings.Lora is { } lora && Projections.All(p => p.Rank == 0))
            throw new HeadroomException(
                $"The adapter's target_modules ({string.Join(", ", lora.TargetModules)}) "
                    + $"match no module of the model.",
                $"Targets are {Listed([.. config.Family.Targets], "and")}; mind exclude_modules and "
                    + $"layers_to_transform too."
            );
        _finalNorm = Norm(WeightRole.FinalNorm, 0, out _gradFinalNorm);
        _head = _embedding;
        _gradHead = _gradEmbedding;
        // As in PEFT, a tied head or table that is trained is a copy, and the two go separate ways unless
        // ensure_weight_tying says otherwise.
        HasOwnHead = !config.TieWordEmbeddings || !StaysTied && (Saves(_embeddingPath) || Saves(_headPath));
        if (HasOwnHead) _head = Table(_headPath, config.TieWordEmbeddings ? _embeddingPath : _headPath, out _gradHead);
        InverseFrequencies = memory.Static(
            MemoryCategory.BaseWeights, "rope inv_freq", DType.F32, new Shape(config.HeadDim / 2));
        config.InverseFrequencies(out _ropeFactor);
        if ((int)(settings.ExpandedBytes >> 20) is > 0 and var mib)
            ExpandedRoom = memory.Static(
                MemoryCategory.ExpandedWeights, "expanded weights", DType.U8, new Shape(mib, 1 << 20));
        _saved = new Saved[_layers.Length];
    }

    /// <summary>The architecture.</summary>
    public ModelConfig Config { get; }
    /// <summary>Storage, training mode, recompute.</summary>
    public ModelSettings Settings { get; }
    /// <summary>Every trained tensor, in a fixed order.</summary>
    public IReadOnlyList<TrainedParameter> Trained => _trained;
    /// <summary>RoPE inverse frequencies F32 [d/2]; filled by the loader.</summary>
    public Tensor InverseFrequencies { get; }
    /// <summary>The embedding table [V, H].</summary>
    public LinearWeight EmbeddingTable => _embedding;
    /// <summary>The output head [V, H]; the embedding table when tied.</summary>
    public LinearWeight Head => _head;
    /// <summary>False when the head is the embedding table.</summary>
    public bool HasOwnHead { get; }
    /// <summary>
    /// What modules_to_save names: tensors by Hugging Face name, F32, trained whole and saved with the adapter.
    /// </summary>
    public IEnumerable<(string Name, Tensor Weight)> SavedModules
    {
        get
        {
            if (Saves(_embeddingPath)) yield return (_embeddingPath + ".weight", _embedding.Data);
            if (HasOwnHead && Saves(_headPath)) yield return (_headPath + ".weight", _head.Data);
            foreach (var (name, weight) in Norms)
                if (Saves(name[..^".weight".Length])) yield return (name, weight);
        }
    }
    /// <summary>
    /// U8 [MiB, 2^20] for weights that stay expanded, or none; see <see cref="ModelSettings.ExpandedBytes"/>.
    /// </summary>
    public Tensor ExpandedRoom { get; }

    /// <summary>
    /// Bytes that all frozen weights take in the activation type, with the columns of their adapters and room for
    /// alignment, in whole MiB: more <see cref="ModelSettings.ExpandedBytes"/> than that serve nothing.
    /// </summary>
    public long ExpandableBytes
    {
        get
        {
            if (Settings.Mode == TrainMode.Full) return 0;
            long Expanded(in LinearWeight w, int room) =>
                w.Storage is WeightStorage.F32 or WeightStorage.BF16 or WeightStorage.F16
                    ? 0
                : Settings.ComputeType.Bytes((long)w.Out * (w.In + room)) + ExpandedSlack;
            long bytes = Expanded(_head, 0);
            foreach (var l in _layers)
            {
                foreach (var group in new[] { l.Qkv, l.O, l.GateUp, l.Down })
                    foreach (var p in group.Members) bytes += Expanded(p.Weight, group.Room(training: false));
            }
            return (bytes + (1 << 20) - 1) >> 20 << 20;
        }
    }

    /// <summary>Every tensor of the adapter by its name in PEFT's file, without PEFT's prefix.</summary>
    public IEnumerable<(string Name, Tensor Weight)> AdapterTensors =>
        Projections.SelectMany(p => p.AdapterTensors).Concat(SavedModules);
    /// <summary>Every projection, in layer order.</summary>
    public IEnumerable<Projection> Projections => _layers.SelectMany(l => Enumerable.Range(0, 7).Select(i => l[i]));
    /// <summary>Every norm weight with its name.</summary>
    public IEnumerable<(string Name, Tensor Weight)> Norms =>
        _layers.SelectMany(l => l.Norms).Append((Config.Family[WeightRole.FinalNorm].Weight(), _finalNorm));

    /// <summary>
    /// What DoRA derives from its adapters, anew: due after every change of them. Nothing without DoRA.
    /// </summary>
    public void RefreshAdapters()
    {
        foreach (var l in _layers)
            for (int i = 0; i < 7; i++) l[i].Refresh(_ops);
    }

    private bool Recomputes(int layer) => Settings.RecomputeLayers < 0 || layer < Settings.RecomputeLayers;

    private bool StaysTied => Config.TieWordEmbeddings && Settings.Lora?.EnsureWeightTying == true;

    private bool Saves(string path) =>
        Settings.Lora is { } lora && (lora.Saves(path) || path == _embeddingPath && StaysTied && lora.Saves(_headPath));

    private bool Trains(string path) =>
        Settings.Mode == TrainMode.Full || Settings.Mode == TrainMode.Adapters && Saves(path);

    // The embedding table or the head; float32 when it is trained beside a frozen base.
    private LinearWeight Table(string path, string like, out Tensor grad)
    {
        string name = path + ".weight";
        var storage = Saves(path) ? WeightStorage.F32 : Settings.EmbeddingStorage;
        var table = WeightAllocation.Allocate(
            _memory, MemoryCategory.Embeddings, name, Config.VocabSize, Config.HiddenSize, Settings, storage, false,
            like + ".weight");
        grad = Trains(path) ? WeightAllocation.Train(_memory, _trained, name, table.Data, true) : default;
        return table;
    }

    private void CheckSaves(IReadOnlyList<string> entries)
    {
        string[] known = [_embeddingPath, _headPath,
            .. Config.Family.Weights(Config).Where(w => w.Kind == WeightKind.Norm).Select(w => w.Row.Path(w.Layer))];
        var norms = Config.Family.Rows.Where(r => r.Kind == WeightKind.Norm).Select(r => r.Leaf);
        string[] projections = [.. Config.ProjectionPaths()];
        foreach (string entry in entries)
        {
            bool Ends(string path) => path.EndsWith(entry, StringComparison.Ordinal);
            if (entry.Length == 0 || projections.Any(Ends) || !known.Any(Ends))
                throw new HeadroomException($"modules_to_save: '{entry}' is no module that can be trained whole.",
                    $"Name {Listed([.. ModelFamilies.Tables.Reverse(), .. norms], "or")}; projections go into "
                        + "target_modules.");
        }
    }

    private static string Listed(string[] names, string last) =>
        string.Join(", ", names[..^1]) + $" {last} {names[^1]}";

    private Tensor Norm(WeightRole role, int layer, out Tensor grad)
    {
        var row = Config.Family[role];
        string name = row.Weight(layer);
        var weight = _memory.Static(MemoryCategory.BaseWeights, name, DType.F32, new Shape(row.Shape(Config).Rows));
        grad = Trains(row.Path(layer)) ? WeightAllocation.Train(_memory, _trained, name, weight, false) : default;
        return weight;
    }

    private Tensor Temp(MemoryCategory category, string name, int rows, int columns) =>
        _memory.Alloc(category, name, Settings.ComputeType, new Shape(rows, columns));

    private Tensor Rstd(MemoryCategory category, int rows) =>
        _memory.Alloc(category, "rstd", DType.F32, new Shape(rows));

    private Tensor Temp32(MemoryCategory category, string name, int rows, int columns) =>
        _memory.Alloc(category, name, DType.F32, new Shape(rows, columns));

    /// <summary>The seven projections of a layer, by what they share as input, and its norms.</summary>
    private sealed class Layer
    {
        private readonly Projection[] _projections;

        public Layer(LlamaModel m, int index)
        {
            var c = m.Config;
            uint site = (uint)index * 8;
            Projection P(WeightRole role)
            {
                var row = c.Family[role];
                var (o, i) = row.Shape(c);
                return new(
                    m._memory, m._trained, row.Path(index), o, i, m.Settings, row.Bias?.Invoke(c) == true, site++);
            }
            Tensor N(WeightRole role, out Tensor grad)
            {
                var weight = m.Norm(role, index, out grad);
                Norms.Add((c.Family[role].Weight(index), weight));
                return weight;
            }
            Norm1 = N(WeightRole.AttentionNorm, out GradNorm1);
            Projection queries = P(WeightRole.Query), keys = P(WeightRole.Key), values = P(WeightRole.Value);
            var output = P(WeightRole.Output);
            Norm2 = N(WeightRole.MlpNorm, out GradNorm2);
            Projection gate = P(WeightRole.Gate), up = P(WeightRole.Up), down = P(WeightRole.Down);
            NormsHeads = c.Family.NormsHeads;
            if (NormsHeads)
            {
                QueryNorm = N(WeightRole.QueryNorm, out GradQueryNorm);
                KeyNorm = N(WeightRole.KeyNorm, out GradKeyNorm);
            }
            _projections = [queries, keys, values, output, gate, up, down];
            ProjectionGroup Group(bool intoResidual, params Projection[] members) =>
                new(m._ops, m._memory, m.Settings.ComputeType, intoResidual, members);
            (Qkv, O) = (Group(false, queries, keys, values), Group(true, output));
            (GateUp, Down) = (Group(false, gate, up), Group(true, down));
            int window = c.LayerSlides(index) ? c.SlidingWindow ?? 0 : 0;
            Attention = new AttentionShape(c.NumAttentionHeads, c.NumKeyValueHeads, c.HeadDim, window);
        }

        public readonly List<(string Name, Tensor Weight)> Norms = [];
        public readonly bool NormsHeads;
        public readonly Tensor Norm1, Norm2, QueryNorm, KeyNorm, GradNorm1, GradNorm2, GradQueryNorm, GradKeyNorm;
        public readonly ProjectionGroup Qkv, O, GateUp, Down;
        public readonly AttentionShape Attention;

        public Projection this[int i] => _projections[i];
    }

    /// <summary>What a layer keeps for its backward pass.</summary>
    private struct Saved
    {
        public Tensor Input, Rstd1, Q, K, V, O, Lse, Mid, Rstd2, Gate, Up;
        public GroupKept KeptQkv, KeptO, KeptGateUp, KeptDown;
    }
}
