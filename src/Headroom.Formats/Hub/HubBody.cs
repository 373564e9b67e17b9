using System.Diagnostics;
using System.Globalization;

namespace Headroom.Formats.Hub;

/// <summary>A body that arrives without end: its server sends, but so little that nobody can wait for it.</summary>
internal sealed class TooSlowException(string message) : TimeoutException(message);

/// <summary>
/// The body of an answer, read with bounds: no silence longer than the time-out, and in the long run no fewer bytes a
/// second than a caller can wait for (a byte each time before the time-out would else be progress). A time-out is a
/// <see cref="TimeoutException"/>, a stop an
/// <see cref="OperationCanceledException"/>: the two are never taken for each other.
/// </summary>
internal sealed class HubBody : IAsyncDisposable
{
    /// <summary>Bytes a second of a file, in the long run.</summary>
    public const int FileRate = 1 << 10;

    /// <summary>Bytes a second of lists and headers, which are small, in the long run.</summary>
    public const int MetadataRate = 1 << 14;

    private const int Patience = 6; // time-outs that a body may take beyond what its rate explains
    private readonly Stream _stream;
    private readonly TimeSpan _silence;
    private readonly int _rate;
    private readonly CancellationToken _stop;
    private readonly Stopwatch _clock = Stopwatch.StartNew();
    private long _bytes;

    private HubBody(Stream stream, TimeSpan silence, int rate, CancellationToken stop) =>
        (_stream, _silence, _rate, _stop) = (stream, silence, rate, stop);

    /// <summary>Opens the body of an answer whose headers are there.</summary>
    /// <param name="response">The answer; stays the caller's.</param>
    /// <param name="silence">Longest wait for the next bytes.</param>
    /// <param name="rate">Least bytes a second, <see cref="FileRate"/> or <see cref="MetadataRate"/>.</param>
    /// <param name="stop">Stops.</param>
    public static async Task<HubBody> Open(
        HttpResponseMessage response, TimeSpan silence, int rate, CancellationToken stop
    ) => new(await response.Content.ReadAsStreamAsync(stop).ConfigureAwait(false), silence, rate, stop);

    /// <summary>The next bytes; 0 at the end.</summary>
    /// <exception cref="TimeoutException">Nothing came in time, or too little.</exception>
    /// <exception cref="OperationCanceledException">It was stopped.</exception>
    public async Task<int> Read(Memory<byte> buffer)
    {
        var due = Patience * _silence + TimeSpan.FromSeconds((double)_bytes / _rate);
        var left = due - _clock.Elapsed;
        if (left <= TimeSpan.Zero) throw TooSlow();
        bool last = left < _silence;
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(_stop);
        limit.CancelAfter(last ? left : _silence);
        try
        {
            int n = await _stream.ReadAsync(buffer, limit.Token).ConfigureAwait(false);
            _bytes += n;
            return n;
        }
        // A read that meets its own time-out at the last moment finds the connection closed under it.
        catch (Exception e)
            when (limit.IsCancellationRequested
                && e is (OperationCanceledException or ObjectDisposedException or IOException))
        {
            _stop.ThrowIfCancellationRequested();
            if (last) throw TooSlow();
            throw new TimeoutException(
                string.Create(CultureInfo.InvariantCulture, $"no data for {_silence.TotalSeconds:0.#} s"));
        }
    }

    /// <summary>The whole of a small body.</summary>
    /// <param name="most">Bytes it may have.</param>
    /// <returns>The bytes, or null when there are more.</returns>
    /// <exception cref="TimeoutException">Nothing came in time, or too little.</exception>
    public async Task<byte[]?> ReadAll(int most)
    {
        using var all = new MemoryStream();
        var block = new byte[1 << 16];
        for (int n; (n = await Read(block).ConfigureAwait(false)) > 0;)
        {
            if (all.Length + n > most) return null;
            all.Write(block, 0, n);
        }
        return all.ToArray();
    }

    /// <summary>Exactly so many bytes.</summary>
    /// <exception cref="TimeoutException">Nothing came in time, or too little.</exception>
    /// <exception cref="EndOfStreamException">The body is shorter.</exception>
    public async Task Fill(Memory<byte> buffer)
    {
        for (int n; !buffer.IsEmpty; buffer = buffer[n..])
            if ((n = await Read(buffer).ConfigureAwait(false)) == 0)
                throw new EndOfStreamException("the connection was closed early");
    }

    private TooSlowException TooSlow() =>
        new(
            string.Create(
                CultureInfo.InvariantCulture, $"only {_bytes} bytes came in {_clock.Elapsed.TotalSeconds:0.#} s")
        );

    public ValueTask DisposeAsync() => _stream.DisposeAsync();
}
