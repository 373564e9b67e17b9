using Headroom.Core;
using Headroom.Formats.Gguf;
using Headroom.Formats.Peft;
using Headroom.Inference.Bases;
using Headroom.Models;
using Headroom.Tokenizers;

namespace Headroom.Inference;

/// <summary>
/// A base with its adapter, opened and not yet read: the one way in which training, evaluation, generation and export
/// come to a model. Closes the files when it is disposed; an engine that was loaded needs them no more.
/// </summary>
internal sealed class OpenModel : IDisposable
{
    private readonly ModelSource _from;
    private readonly IWeightSource _base;
    private readonly (string Folder, RunManifest Manifest)? _run;
    private readonly Action<string>? _say;
    private bool _isChecked;

    private OpenModel(
        ModelSource from, IWeightSource source, PeftAdapter? adapter, (string, RunManifest)? run,
        QuantizationOptions? quantization, Action<string>? say)
    {
        (_from, _base, _run, _say) = (from, source, run, say);
        (Adapter, Quantization) = (adapter, quantization);
        Source = AdapterBase.Subtract(source, adapter);
    }

    /// <summary>
    /// Opens the files: the base's quantized copy where there is one that will do, the original where the adapter's
    /// start has to be taken out of it.
    /// </summary>
    /// <param name="from">Which model.</param>
    /// <param name="say">Takes what is odd about the files but no error, a line each.</param>
    /// <exception cref="HeadroomException">A file is missing, damaged or not understood, or base and adapter do not go
    /// together.</exception>
    public static OpenModel Open(ModelSource from, Action<string>? say = null)
    {
        var adapter = from.Adapter == null ? null : PeftAdapter.Load(from.Adapter, say);
        var run = from.Adapter == null ? null : RunManifest.Around(from.Adapter);
        var quantization = from.Quantization;
        if (from.AsTrained && run is { } trained)
        {
            quantization = trained.Manifest.Quantization;
            quantization.Cache = from.Quantization?.Cache;
        }
        var source = quantization == null || from.OwnWeights || adapter?.Initial != null
            ? WeightSources.Open(from.Path)
            : QuantizedCache.Default.Open(from.Path, quantization, say);
        try
        {
            return new OpenModel(from, source, adapter, run, quantization, say);
        }
        catch
        {
            source.Dispose();
            throw;
        }
    }

    /// <summary>The base as the adapter needs it: less what the adapter's start took out of it.</summary>
    internal IWeightSource Source { get; }
    /// <summary>Its configuration.</summary>
    internal ModelConfig Config => Source.Config;
    /// <summary>The adapter, or null.</summary>
    internal PeftAdapter? Adapter { get; }
    /// <summary>What the run that the adapter lies in says of it; null where it lies in none.</summary>
    internal RunManifest? Run => _run?.Manifest;
    /// <summary>Storage of the projections; null = as the file has them.</summary>
    public QuantizationOptions? Quantization { get; }
    /// <summary>The tokenizer.</summary>
    public ITokenizer Tokenizer => _from.Tokenizer;
    /// <summary>The file holds the projections in 4 bits.</summary>
    public bool IsQuantized => Source.QuantizedAs(Config.AnyProjectionName()) != null;
    /// <summary>How base and tokenizer were read where their files were not clear, a sentence or two each.</summary>
    public IEnumerable<string> Notices => Source.Notices.Concat(Tokenizer.Notices);

    /// <summary>
    /// Refuses a base that the adapter was not trained on. Reads all of the base where its hash is not known yet, so
    /// what costs less is better refused before.
    /// </summary>
    /// <exception cref="HeadroomException">Its weights or its configuration are others.</exception>
    public void Check()
    {
        if (_isChecked) return;
        Adapter?.CheckBase(Source, _say);
        _run?.Manifest.CheckConfiguration(_run.Value.Folder, Config);
        _isChecked = true;
    }

    /// <summary>Settings by which the model is held on a device, of which nothing is trained.</summary>
    /// <param name="device">The device.</param>
    /// <param name="precision">Type of the activations.</param>
    /// <exception cref="HeadroomException">As <see cref="BaseSettings.Choose"/>.</exception>
    internal ModelSettings Settings(IDevice device, Precision precision = Precision.Auto) =>
        BaseSettings.Choose(Source, device, Quantization, precision) with { Lora = Adapter?.Lora };

    /// <summary>Plans, reserves and loads base and adapter, after <see cref="Check"/>.</summary>
    /// <param name="device">Belongs to the engine from now on.</param>
    /// <param name="settings">Those of <see cref="Settings"/>, or more.</param>
    /// <param name="limits">The largest batches.</param>
    /// <param name="progress">Elements done and in all.</param>
    /// <exception cref="HeadroomException">The base is another, or a weight is missing or not finite.</exception>
    internal Engine Load(
        IDevice device, ModelSettings settings, BatchLimits limits, Action<long, long>? progress = null)
    {
        Check();
        var engine = new Engine(device, Source, settings, limits, progress);
        try
        {
            if (Adapter == null) return engine;
            engine.Initial = Adapter.Initial;
            engine.LoadAdapter(Adapter);
            return engine;
        }
        catch
        {
            engine.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _base.Dispose();
}
