using System.Runtime.CompilerServices;
using Headroom.Core;
using Headroom.Tokenizers.Chat;
using Microsoft.Extensions.AI;
using ChatMessage = Microsoft.Extensions.AI.ChatMessage;

namespace Headroom.Inference;

/// <summary>
/// A local model behind <see cref="IChatClient"/>, for .NET applications. Requests are served one at a time; of a
/// conversation that goes on, only what is new is computed. Open the generator with <c>Generator.Open</c> on what
/// <c>CpuBackend.Open</c> or <c>CudaBackend.Open</c> gives.
/// </summary>
public sealed class HeadroomChatClient : IChatClient
{
    private readonly Generator _generator;
    private readonly ChatTemplate _template;
    private readonly GenerationOptions _defaults;
    private readonly ChatClientMetadata _metadata;
    // holds no handle, so it needs no Dispose, which a response still under way would trip over
    private readonly SemaphoreSlim _turn = new(1, 1);
    private readonly Lock _gate = new(); // held while the model computes, a token at a time
    private readonly CancellationTokenSource _closing = new();
    private bool _disposed;

    /// <summary>Over a generator, which the client owns from now on.</summary>
    /// <param name="generator">The model.</param>
    /// <param name="modelId">Its name in metadata and responses.</param>
    /// <param name="defaults">What counts where <see cref="ChatOptions"/> says nothing, such as
    /// <c>SamplingOptions.Take(GenerationConfig.Beside(path))</c>; null = greedy, 256 tokens.</param>
    /// <exception cref="HeadroomException">The model has no chat template, or one that cannot be used.</exception>
    public HeadroomChatClient(Generator generator, string? modelId = null, GenerationOptions? defaults = null)
    {
        _generator = generator;
        _template = ChatTemplate.Get(generator.Tokenizer);
        _defaults = defaults ?? new GenerationOptions();
        _metadata = new ChatClientMetadata("headroom", defaultModelId: modelId);
    }

    /// <inheritdoc/>
    /// <exception cref="HeadroomException">An option or content that is not supported, messages that the template
    /// refuses, a conversation longer than the context.</exception>
    public async Task<ChatResponse> GetResponseAsync(
        IEnumerable<ChatMessage> messages, ChatOptions? options = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(messages);
        await Turn(cancellationToken).ConfigureAwait(false);
        try
        {
            var g = Start(messages, options);
            await Task.Run(
                () =>
                {
                    while (Next(g, cancellationToken))
                    {
                    }
                },
                CancellationToken.None).ConfigureAwait(false);
            cancellationToken.ThrowIfCancellationRequested();
            return new ChatResponse(new ChatMessage(ChatRole.Assistant, g.Text))
            {
                ResponseId = Guid.NewGuid().ToString("N"),
                ModelId = Model(options),
                CreatedAt = DateTimeOffset.UtcNow,
                FinishReason = Finish(g),
                Usage = Usage(g),
            };
        }
        finally
        {
            _turn.Release();
        }
    }

    /// <inheritdoc/>
    /// <exception cref="HeadroomException">As <see cref="GetResponseAsync"/>.</exception>
    public async IAsyncEnumerable<ChatResponseUpdate> GetStreamingResponseAsync(
        IEnumerable<ChatMessage> messages, ChatOptions? options = null,
        [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(messages);
        string id = Guid.NewGuid().ToString("N");
        await Turn(cancellationToken).ConfigureAwait(false);
        try
        {
            var g = Start(messages, options);
            ChatResponseUpdate Update(string text) =>
                new(ChatRole.Assistant, text)
                {
                    ResponseId = id,
                    MessageId = id,
                    ModelId = Model(options),
                    CreatedAt = DateTimeOffset.UtcNow,
                };
            bool more;
            do
            {
                more = await Task.Run(() => Next(g, cancellationToken), CancellationToken.None).ConfigureAwait(false);
                cancellationToken.ThrowIfCancellationRequested();
                if (g.Piece.Length > 0) yield return Update(g.Piece);
            }
            while (more);
            var last = Update("");
            last.FinishReason = Finish(g);
            last.Contents = [new UsageContent(Usage(g))];
            yield return last;
        }
        finally
        {
            _turn.Release();
        }
    }

    /// <inheritdoc/>
    public object? GetService(Type serviceType, object? serviceKey = null)
    {
        ArgumentNullException.ThrowIfNull(serviceType);
        return serviceKey != null ? null
            : serviceType == typeof(ChatClientMetadata) ? _metadata
            : serviceType == typeof(Generator) ? _generator
            : serviceType.IsInstanceOfType(this) ? this : null;
    }

    private async Task Turn(CancellationToken stop)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(stop, _closing.Token);
        try
        {
            await _turn.WaitAsync(either.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (!stop.IsCancellationRequested)
        {
            throw new ObjectDisposedException(nameof(HeadroomChatClient));
        }
    }

    private bool Next(Generation g, CancellationToken stop)
    {
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            return g.MoveNext(stop);
        }
    }

    private Generation Start(IEnumerable<ChatMessage> messages, ChatOptions? o)
    {
        if (o?.Tools is { Count: > 0 }) throw NotSupported("Tools");
        if (o?.ResponseFormat is ChatResponseFormatJson) throw NotSupported("ResponseFormat JSON");
        if (o?.FrequencyPenalty is { } f && f != 0) throw NotSupported("FrequencyPenalty");
        if (o?.PresencePenalty is { } p && p != 0) throw NotSupported("PresencePenalty");
        var s = _defaults.Sampling;
        var options = _defaults with
        {
            MaxNewTokens = o?.MaxOutputTokens ?? _defaults.MaxNewTokens,
            Stop = o?.StopSequences is { } stop ? [.. _defaults.Stop, .. stop] : _defaults.Stop,
            Sampling = s with
            {
                Temperature = o?.Temperature ?? s.Temperature,
                TopK = o?.TopK ?? s.TopK,
                TopP = o?.TopP ?? s.TopP,
                Seed = o?.Seed is { } seed ? unchecked((int)seed) : s.Seed,
            },
        };
        var all = messages.Select(m => new Tokenizers.Chat.ChatMessage(m.Role.Value, Text(m))).ToList();
        if (!string.IsNullOrEmpty(o?.Instructions))
            all.Insert(0, new Tokenizers.Chat.ChatMessage("system", o.Instructions));
        int[] prompt = _template.Encode(all, addGenerationPrompt: true);
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            return _generator.Start(prompt, options);
        }
    }

    private static string Text(ChatMessage m)
    {
        foreach (var content in m.Contents)
            if (content is not (TextContent or UsageContent)) throw NotSupported(content.GetType().Name);
        return m.Text;
    }

    private string? Model(ChatOptions? o) => o?.ModelId ?? _metadata.DefaultModelId;

    private static ChatFinishReason Finish(Generation g) =>
        g.Finish == FinishReason.Length ? ChatFinishReason.Length : ChatFinishReason.Stop;

    private static UsageDetails Usage(Generation g) => new()
    {
        InputTokenCount = g.PromptTokens,
        OutputTokenCount = g.Ids.Count,
        TotalTokenCount = g.PromptTokens + g.Ids.Count,
        CachedInputTokenCount = g.ReusedTokens,
    };

    private static HeadroomException NotSupported(string what) =>
        new(
            $"{what} is not supported by the chat client.",
            "Leave it out: text messages, Temperature, TopK, TopP, MaxOutputTokens, StopSequences, Seed and "
                + "Instructions are."
        );

    /// <summary>
    /// Frees the model, after the token that is being computed; a response under way, and those that wait for it, end
    /// with <see cref="ObjectDisposedException"/>.
    /// </summary>
    public void Dispose()
    {
        lock (_gate)
        {
            if (_disposed) return;
            _disposed = true;
            _generator.Dispose();
        }
        _closing.Cancel();
    }
}
