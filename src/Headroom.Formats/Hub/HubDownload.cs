using System.Buffers;
using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Security.Cryptography;
using Microsoft.Win32.SafeHandles;

namespace Headroom.Formats.Hub;

/// <summary>
/// One blob, from the download address to blobs/: in pieces, several at a time, each resumed where its connection
/// broke; then size and hash are checked and the file is renamed. Pieces that are whole are listed beside the
/// unfinished file, so a killed download goes on where it was. The names differ from huggingface_hub's own
/// *.incomplete, which must not take a file with holes for its own.
/// </summary>
internal sealed class HubDownload(
    HubClient client, HubCache cache, HubName name, TimeSpan timeout, SemaphoreSlim connections, Action<long> onBytes)
{
    /// <summary>Bytes of a piece: large enough that a request costs nothing, small enough to lose.</summary>
    public const long DefaultPiece = 64 << 20;
    private const int Workers = 4, MostRestarts = 2;

    // Less than this between two breaks is no progress: a server that breaks off after each byte would be asked without
    // end.
    private const int LeastProgress = 1 << 16;

    /// <summary>Bytes of a piece.</summary>
    public long PieceBytes { get; init; } = DefaultPiece;

    /// <summary>The remote side ignored a Range header: the file can only be read from its start.</summary>
    private sealed class RangeIgnoredException : Exception;

    /// <summary>
    /// Downloads and verifies; <paramref name="again"/> repeats the metadata request when a signed address has expired.
    /// </summary>
    public async Task Run(HubFile file, Func<Task<HubFile>> again, CancellationToken stop)
    {
        string blob = cache.Blob(file.Etag), unfinished = blob + ".headroom.incomplete", list = unfinished + ".pieces";
        cache.Guard(() => cache.CreateFolder(Path.GetDirectoryName(blob)!));
        var state = new State(file, again);
        try
        {
            try
            {
                await Fill(state, unfinished, list, PieceBytes, stop).ConfigureAwait(false);
            }
            catch (RangeIgnoredException)
            {
                onBytes(-Interlocked.Exchange(ref state.Received, 0));
                File.Delete(list);
                await Fill(state, unfinished, list, Math.Max(1, file.Size), stop).ConfigureAwait(false);
            }
            Verify(file, unfinished, stop);
        }
        catch (HubException e) when (e.Fault == HubFault.Damaged)
        {
            File.Delete(unfinished);
            File.Delete(list);
            throw;
        }
        cache.Guard(() =>
        {
            File.Move(unfinished, blob, overwrite: true);
            File.Delete(list);
        });
    }

    /// <summary>What the workers of one file share.</summary>
    private sealed class State(HubFile file, Func<Task<HubFile>> again)
    {
        public volatile HubFile File = file;
        public readonly Func<Task<HubFile>> Again = again;
        public readonly Lock Gate = new();
        public long Received;
        public int Restarts;
    }

    // Long: workers that share a queue, a file and a list, and how each of their ends is told.
    private async Task Fill(State state, string unfinished, string list, long piece, CancellationToken stop)
    {
        long size = state.File.Size;
        int pieces = (int)((size + piece - 1) / piece);
        string head = string.Create(CultureInfo.InvariantCulture, $"{size} {piece}");
        var done =
            File.Exists(unfinished) && new FileInfo(unfinished).Length == size ? ReadList(list, head, pieces) : [];
        using var handle = cache.Guard(() =>
            File.OpenHandle(unfinished, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.Read)
        );
        cache.Guard(() => RandomAccess.SetLength(handle, size));
        if (done.Count == 0) cache.Guard(() => File.WriteAllText(list, head + "\n"));
        foreach (int p in done) Count(state, Math.Min(size, (p + 1) * piece) - p * piece);
        var queue = new Queue<int>(Enumerable.Range(0, pieces).Where(p => !done.Contains(p)));
        using var cancel = CancellationTokenSource.CreateLinkedTokenSource(stop);
        var workers = Enumerable.Range(0, Math.Min(Workers, queue.Count)).Select(_ => Task.Run(async () =>
        {
            while (true)
            {
                int p;
                lock (state.Gate)
                    if (!queue.TryDequeue(out p)) return;
                await connections.WaitAsync(cancel.Token).ConfigureAwait(false);
                try
                {
                    await Piece(
                            state,
                            handle,
                            p * piece,
                            Math.Min(size, (p + 1) * piece),
                            pieces == 1,
                            cancel.Token
                        )
                        .ConfigureAwait(false);
                }
                catch
                {
                    await cancel.CancelAsync().ConfigureAwait(false);
                    throw;
                }
                finally
                {
                    connections.Release();
                }
                if (pieces == 1) continue;
                RandomAccess.FlushToDisk(handle); // the list must not promise what a power cut can take back
                lock (state.Gate) File.AppendAllText(list, string.Create(CultureInfo.InvariantCulture, $"{p}\n"));
            }
        }, CancellationToken.None)).ToArray();
        try
        {
            await Task.WhenAll(workers).ConfigureAwait(false);
        }
        catch
        {
            // The first real fault, not the cancellations that it caused.
            stop.ThrowIfCancellationRequested();
            var faults = workers.Where(w => w.IsFaulted).SelectMany(w => w.Exception!.InnerExceptions).ToList();
            throw faults.FirstOrDefault(f => f is RangeIgnoredException)
                ?? faults.FirstOrDefault(f => f is not OperationCanceledException)
                ?? faults[0];
        }
        cache.Guard(() => RandomAccess.FlushToDisk(handle));
    }

    /// <summary>Bytes [begin, end) of the file; <paramref name="only"/> when that is all of it.</summary>
    // Long: one loop of tries, and what each kind of answer or fault does to it.
    private async Task Piece(
        State state, SafeFileHandle handle, long begin, long end, bool only, CancellationToken stop)
    {
        long at = begin;
        int failures = 0;
        void Restart()
        {
            if (Interlocked.Increment(ref state.Restarts) > MostRestarts) throw WrongSize(state.File, at);
            Count(state, begin - at);
            at = begin;
        }
        while (at < end)
        {
            long before = at;
            try
            {
                var file = state.File;
                var range = only && at == begin ? null : new RangeHeaderValue(at, only ? null : end - 1);
                using var response = await client.Get(file.Location, range, stop).ConfigureAwait(false);
                switch (response.StatusCode)
                {
                    case HttpStatusCode.PartialContent:
                        if (response.Content.Headers.ContentRange is { From: { } from } && from != at || range == null)
                            throw new IOException("another range than was asked for");
                        break;
                    case HttpStatusCode.OK when only:
                        if (at > begin) Count(state, begin - at);
                        at = begin;
                        before = at;
                        if (response.Content.Headers.ContentLength is { } length && length != end)
                            throw WrongSize(file, length);
                        break;
                    case HttpStatusCode.OK:
                        throw new RangeIgnoredException();
                    case HttpStatusCode.RequestedRangeNotSatisfiable:
                        Restart();
                        continue;
                    case HttpStatusCode.Forbidden
                        when !client.IsEndpoint(file.Location) && ++failures < HubClient.Attempts:
                        // A signed address that has expired: ask for a new one.
                        var fresh = await client.Retry(state.Again, stop).ConfigureAwait(false);
                        if (fresh.Etag != file.Etag)
                            throw HubClient.Damaged(
                                $"{file.File} of {name.Id} changed while it was downloaded.", "Run it again.");
                        state.File = fresh;
                        continue;
                    default:
                        throw HubException.From(response, name, file.Commit, file.File);
                }
                at = await Read(state, handle, response, at, end).ConfigureAwait(false);
                if (at < end) throw new IOException("the connection was closed early");
            }
            catch (Exception e) when (HubClient.IsTransient(e) && !stop.IsCancellationRequested)
            {
                failures = e is not TooSlowException && (at - before >= LeastProgress || at == end) ? 1 : failures + 1;
                if (failures >= HubClient.Attempts) throw;
                await client.Wait(failures, e, stop).ConfigureAwait(false);
            }
        }

        async Task<long> Read(State s, SafeFileHandle to, HttpResponseMessage response, long position, long last)
        {
            byte[] buffer = ArrayPool<byte>.Shared.Rent(1 << 20);
            try
            {
                await using var body = await HubBody
                    .Open(response, timeout, HubBody.FileRate, stop)
                    .ConfigureAwait(false);
                while (true)
                {
                    int n = await body.Read(buffer).ConfigureAwait(false);
                    if (n == 0) return position;
                    if (position + n > last) throw WrongSize(s.File, position + n);
                    int count = n;
                    long where = position;
                    cache.Guard(() => RandomAccess.Write(to, buffer.AsSpan(0, count), where));
                    position = at = position + n; // what is written stays, whatever the next read does
                    Count(s, n);
                }
            }
            finally
            {
                ArrayPool<byte>.Shared.Return(buffer);
            }
        }
    }

    private void Count(State state, long bytes)
    {
        Interlocked.Add(ref state.Received, bytes);
        onBytes(bytes);
    }

    private static HashSet<int> ReadList(string list, string head, int pieces)
    {
        if (!File.Exists(list)) return [];
        string[] lines = File.ReadAllLines(list);
        if (lines.Length == 0 || lines[0] != head) return [];
        return
        [
            .. lines
                .Skip(1)
                .Select(l => int.TryParse(l, NumberStyles.None, CultureInfo.InvariantCulture, out int p) ? p : -1)
                .Where(p => p >= 0 && p < pieces),
        ];
    }

    private HubException WrongSize(HubFile file, long bytes) =>
        HubClient.Damaged(
            $"{file.File} of {name.Id} has {bytes} bytes where the hub announced {file.Size}.",
            "Run it again; the unfinished file was removed.");

    /// <summary>
    /// Size, and SHA-256 (64 hex digits) or git blob id (40: SHA-1 of "blob size\0" and the content).
    /// </summary>
    private void Verify(HubFile file, string path, CancellationToken stop)
    {
        if (new FileInfo(path).Length is var length && length != file.Size) throw WrongSize(file, length);
        if (file.Etag.Length is not (40 or 64) || !file.Etag.All(char.IsAsciiHexDigitLower)) return;
        using var hash = IncrementalHash.CreateHash(
            file.Etag.Length == 64 ? HashAlgorithmName.SHA256 : HashAlgorithmName.SHA1);
        if (file.Etag.Length == 40)
            hash.AppendData(
                System.Text.Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"blob {file.Size}\0"))
            );
        using (
            var stream = new FileStream(
                path, FileMode.Open, FileAccess.Read, FileShare.Read, 1, FileOptions.SequentialScan)
        )
        {
            byte[] buffer = new byte[1 << 20];
            for (int n; (n = stream.Read(buffer)) > 0; stop.ThrowIfCancellationRequested())
                hash.AppendData(buffer, 0, n);
        }
        if (Convert.ToHexStringLower(hash.GetHashAndReset()) != file.Etag)
            throw HubClient.Damaged(
                $"{file.File} of {name.Id} arrived damaged: its hash is not the one that the hub announced.",
                "Run it again; the damaged file was removed.");
    }
}
