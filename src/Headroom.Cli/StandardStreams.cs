using System.Runtime.InteropServices;
using System.Text;
using Headroom.Core;

namespace Headroom.Cli;

/// <summary>
/// Whoever read the output has gone, or there never was one: the command ends without a word, with the exit code that
/// other tools of a shell have then.
/// </summary>
internal sealed class OutputClosedException(int exitCode)
    : HeadroomException("Standard output is closed.", "Run it with an output.", exitCode);

/// <summary>
/// The three standard streams as a shell may hand them over: closed, full, or a pipe whose reader has gone.
/// </summary>
internal static partial class StandardStreams
{
    private const int GetFlags = 1,
        CloseOnExec = 1,
        Interrupted = 4,
        Again = 11,
        BrokenPipe = 32; // F_GETFD, FD_CLOEXEC, EINTR, EAGAIN, EPIPE

    /// <summary>Puts streams in the console's place that say what happens to them.</summary>
    public static void Open()
    {
        TextWriter output = new StreamWriter(new Output(), new UTF8Encoding(false)) { AutoFlush = true };
        Console.SetOut(Console.IsOutputRedirected ? output : new TerminalText(output));
        TextWriter error = IsOpen(2) ? new QuietError(Console.Error) : TextWriter.Null;
        Console.SetError(Console.IsErrorRedirected ? error : new TerminalText(error));
        if (!IsOpen(0)) Console.SetIn(TextReader.Null);
        else if (Console.IsInputRedirected)
            // bytes that are no text are refused, not replaced
            Console.SetIn(new StreamReader(Console.OpenStandardInput(), new UTF8Encoding(false, true)));
    }

    /// <summary>
    /// Whether a stream was handed over. The runtime's own files take the numbers of those that were not, so that a
    /// number that is in use proves nothing; but they are closed on exec(2), which a stream that came through one
    /// cannot be.
    /// </summary>
    private static bool IsOpen(int stream) =>
        OperatingSystem.IsWindows() || Control(stream, GetFlags) is >= 0 and var flags && (flags & CloseOnExec) == 0;

    /// <summary>
    /// Standard output by write(2): the console's own stream takes a pipe without a reader for one that reads
    /// everything, and a command would run on for nobody.
    /// </summary>
    private sealed class Output : Stream
    {
        private readonly bool _open = IsOpen(1);
        private readonly Stream? _windows = OperatingSystem.IsWindows() ? Console.OpenStandardOutput() : null;

        /// <inheritdoc/>
        public override void Write(ReadOnlySpan<byte> bytes)
        {
            if (!_open) throw new OutputClosedException(1);
            try
            {
                if (_windows != null) _windows.Write(bytes);
                else Unix(bytes);
            }
            catch (IOException e)
            {
                throw new HeadroomException(
                    $"Standard output cannot be written: {e.Message}",
                    "Free some space, or send the output somewhere else.", 1, e);
            }
        }

        private static unsafe void Unix(ReadOnlySpan<byte> bytes)
        {
            while (bytes.Length > 0)
            {
                nint n;
                fixed (byte* p = bytes) n = StandardStreams.Write(1, p, bytes.Length);
                if (n >= 0)
                {
                    bytes = bytes[(int)n..];
                    continue;
                }
                int error = Marshal.GetLastPInvokeError();
                if (error == BrokenPipe)
                    throw new OutputClosedException(128 + 13); // as if SIGPIPE, which the runtime ignores, had ended it
                if (error == Again || OperatingSystem.IsMacOS() && error == 35)
                    Thread.Sleep(1); // a pipe that does not block
                else if (error != Interrupted) throw new IOException(Marshal.GetLastPInvokeErrorMessage());
            }
        }

        /// <inheritdoc/>
        public override void Write(byte[] buffer, int offset, int count) => Write(buffer.AsSpan(offset, count));

        /// <inheritdoc/>
        public override void Flush()
        {
        }

        /// <inheritdoc/>
        public override bool CanRead => false;
        /// <inheritdoc/>
        public override bool CanSeek => false;
        /// <inheritdoc/>
        public override bool CanWrite => true;
        /// <inheritdoc/>
        public override long Length => throw new NotSupportedException();
        /// <inheritdoc/>
        public override long Position
        {
            get => throw new NotSupportedException();
            set => throw new NotSupportedException();
        }
        /// <inheritdoc/>
        public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();
        /// <inheritdoc/>
        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();
        /// <inheritdoc/>
        public override void SetLength(long value) => throw new NotSupportedException();
    }

    [LibraryImport("libc", EntryPoint = "write", SetLastError = true)]
    private static unsafe partial nint Write(int file, byte* bytes, nint count);
    [LibraryImport("libc", EntryPoint = "fcntl")]
    private static partial int Control(int file, int command);
}
